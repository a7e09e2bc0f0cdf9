"""Deletion orders at a site: heard, checked, carried out, answered and proved."""
