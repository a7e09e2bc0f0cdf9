"""Reports of runs, audits and comparisons: one JSON document with a schema, and pages made from it."""
