"""The commands of `munkey-client`, one file for each of its subjects."""
