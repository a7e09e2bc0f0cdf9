"""The model: its shape, its parts, and how weights are chosen and kept."""
