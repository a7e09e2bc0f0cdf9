"""A federation in one process: sources, hospitals, and what is measured of it."""
