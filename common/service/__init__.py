"""The deletion service as its callers see it, and its messages on the wire."""
