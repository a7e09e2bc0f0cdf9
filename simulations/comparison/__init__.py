"""Every way to forget side by side, on the same federations and forget sets: `munkey-sim compare`."""
