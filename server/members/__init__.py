"""Who belongs to the federation: authority, register, joining, rights."""
