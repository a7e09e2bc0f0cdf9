"""Deletions under faults: real processes are killed, cut off and slowed down, and then every promise is checked."""
