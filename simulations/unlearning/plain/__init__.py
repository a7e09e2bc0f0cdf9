"""Ways to forget that start from a model without a memory, trained by federated averaging. One file each."""
