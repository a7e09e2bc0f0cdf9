"""Shared weights and memories that are solved for, not descended to: sums, masks, the solution, the release."""
