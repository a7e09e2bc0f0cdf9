"""Records as a site is given them, and array files that hold them."""
