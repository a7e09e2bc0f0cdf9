"""The coordinator as processes: Flower's SuperLink behind a guard, the deletion service, and training runs."""
