"""The files of a key store: what lies in each, and how they are made, brought up to date, lost and restored."""
