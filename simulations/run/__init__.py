"""One run of a federation on Flower's simulation runtime, with deletions on the way."""
