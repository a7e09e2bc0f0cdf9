"""Ed25519 keys, DSSE envelopes and in-toto Statements; imports nothing beyond `cryptography` and `rfc8785`."""
