"""Reports of an audit and of a comparison: one JSON document with a schema, and pages made from it."""
