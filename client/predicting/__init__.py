"""Answers about images."""
