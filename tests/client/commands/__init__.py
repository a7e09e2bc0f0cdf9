"""A package, so that its files may share what `conftest.py` holds."""
