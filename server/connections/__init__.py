"""Ports that strangers reach: listening, counting connections, the coordinator's certificate."""
