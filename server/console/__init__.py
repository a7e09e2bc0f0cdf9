"""The coordinator's console: all that its operator may do, and for each member what it may read."""
