"""A small Ray cluster that runs until its stdin closes; prints its address. Started by conftest.py as a process of its own."""

from __future__ import annotations

import logging
import sys

import ray

if __name__ == "__main__":
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=128 * 1024**2,
        _temp_dir=sys.argv[1],
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
    ray.shutdown()
