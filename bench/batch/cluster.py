"""A batch job on a Ray cluster of this machine, with samples of Ray's object store.

Runs in the environment that has Ray; prints JSON. Arguments: folder of Ray's files, number of
nodes, CPUs of each, and the command line of the job without --address.
"""

import json
import subprocess
import sys
import time
from typing import Any

import ray
from ray._private.internal_api import (
    get_memory_info_reply,
    get_state_from_address,
    memory_summary,
)
from ray.cluster_utils import Cluster

OBJECT_STORE_BYTES = 100_000_000
EVERY_S = 1.0


def main(folder: str, nodes: int, cpus: int, words: list[str]) -> None:
    """Run the job on the cluster."""
    cluster = Cluster(shutdown_at_exit=True)
    for number in range(nodes):
        options: dict[str, Any] = {} if number else {"temp_dir": folder, "include_dashboard": False}
        cluster.add_node(num_cpus=cpus, object_store_memory=OBJECT_STORE_BYTES, **options)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    state = get_state_from_address(cluster.address)
    samples, started = [], time.monotonic()
    with subprocess.Popen([*words, "--address", cluster.address], stdout=sys.stderr) as process:
        while process.poll() is None:
            stats = get_memory_info_reply(state).store_stats
            samples.append(
                {
                    "seconds": time.monotonic() - started,
                    "bytes": stats.object_store_bytes_used,
                    "objects": stats.num_local_objects,
                    "created_bytes": stats.cumulative_created_bytes,
                }
            )
            time.sleep(EVERY_S)
    seconds = time.monotonic() - started
    summary = memory_summary(cluster.address, stats_only=True)
    report = {"rc": process.returncode, "seconds": seconds, "summary": summary, "samples": samples}
    print(json.dumps(report))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
