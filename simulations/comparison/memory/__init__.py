"""Where a memory helps: rare classes, late and shifted hospitals, classes that no weight has seen."""
