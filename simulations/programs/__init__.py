"""What every command of `munkey-sim` needs."""
