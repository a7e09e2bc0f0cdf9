"""Who may decide: whose signatures a request needs, legal holds and the opt-out list."""
