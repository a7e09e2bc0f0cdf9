"""What a federation still knows of what it has forgotten, against an oracle: `munkey-sim audit`."""
