"""What sites and the coordinator must agree on: the model, encoders, retrieval, references, settings and words."""
