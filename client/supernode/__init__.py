"""A site as processes: Flower's SuperNode beside the deletion agent."""
