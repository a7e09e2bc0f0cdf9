"""Ways for a federation to forget: MUNKEY's deletion, and what people would use instead. One file each."""
