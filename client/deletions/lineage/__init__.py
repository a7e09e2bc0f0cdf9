"""What descends from records: released weights that a site has taken over, and models that it has given away."""
