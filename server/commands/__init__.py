"""The commands of `munkey-server`."""
