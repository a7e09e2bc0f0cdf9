"""Attacks on a federation that has forgotten: what can someone tell who asks it? One file each."""
