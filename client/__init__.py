"""One site: its Flower ClientApp, key store, local training, data and deletion agent."""
