"""The consoles in front of a large ledger: every screen of every face, from outside, as a browser asks for it."""
