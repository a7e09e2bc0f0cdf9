"""How a site joins a federation and renews its certificate."""
