"""What sites and the coordinator must agree on: the model, encoders, retrieval, references, settings and words."""

import os

# gRPC reads this once, when it is imported, and would write lines of its own beside the one that says what to do.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
