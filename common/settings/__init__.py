"""What a federation agrees on, and how people write it."""
