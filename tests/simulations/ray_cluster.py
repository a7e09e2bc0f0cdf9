"""A Ray cluster of three nodes on this machine, in a process of its own: Ray leaves files open when it starts one.

Prints its address; loses a node for each line that it reads, and ends with its input.
"""

from __future__ import annotations

import os
import sys
from typing import Any

# A machine that has much else to do starts a node within a minute or two.
os.environ |= {"RAY_raylet_start_wait_time_s": "300", "RAY_gcs_server_request_timeout_seconds": "120"}

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


def main() -> None:
    """Serve until there is no more input."""
    cluster: Any = Cluster(
        initialize_head=True, head_node_args={**NODE, "include_dashboard": False, "temp_dir": sys.argv[1]}
    )
    nodes = [cluster.add_node(**NODE), cluster.add_node(**NODE)]
    sys.stdout.write(f"{cluster.address}\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
        sys.stdout.write("lost\n")
        sys.stdout.flush()
    cluster.shutdown()


if __name__ == "__main__":
    main()
