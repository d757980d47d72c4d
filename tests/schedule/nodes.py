"""Ray's own multi-node cluster on this machine: ``python -m tests.schedule.nodes FOLDER N``; prints its address, then obeys lines on stdin.

``kill ID`` kills the raylet of a node and answers when the cluster has noticed; the end of stdin stops everything.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path

import ray
from ray._private.utils import get_ray_address_file
from ray.cluster_utils import Cluster

MEMORY = 80 * 1024**2


def main() -> None:
    # Ray's own Cluster writes its address there, whatever temp_dir says, and does not make the folder.
    Path(get_ray_address_file(None)).parent.mkdir(exist_ok=True)
    # The head has no GPU: it is the driver's.
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "object_store_memory": MEMORY, "temp_dir": sys.argv[1]}
    )
    for _ in range(int(sys.argv[2])):
        cluster.add_node(num_cpus=4, num_gpus=2, object_store_memory=MEMORY)
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    print(cluster.address, flush=True)
    for line in sys.stdin:
        _, node_id = line.split()
        node = next(node for node in cluster.worker_nodes if node.node_id == node_id)
        os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        while any(known["Alive"] and known["NodeID"] == node_id for known in ray.nodes()):
            time.sleep(0.1)
        print("gone", flush=True)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
