"""What sites and the coordinator must agree on: the model, encoders, retrieval, references, settings and words."""

import os

# gRPC reads these once, when it is imported. It would write lines of its own beside the one that says what to do, and
# its handlers for forks abort children that are started while other threads call: Ray lost its processes to them.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
