"""A batch job without Ray: one worker in this process. Runs in the environment that has Ray.

Arguments: the options of `BatchConfig` as JSON, an identifier of the run, and the name of an image
that ends the process, or nothing.
"""

import json
import os
import sys

import numpy as np

from d2serve.servers.ray.batch import attempts, worker
from d2serve.servers.ray.batch.run import BatchConfig, prepare


def main(options: str, run: str, deadly: str) -> None:
    """Process all parts; prints the numbers of images and failed images of each."""
    config = BatchConfig(**json.loads(options))
    job = prepare(config, lambda line: print(line, file=sys.stderr))
    read = worker._read

    def read_or_die(path: str) -> bytes:
        if deadly and path.endswith(deadly):
            os._exit(9)
        return read(path)

    worker._read = read_or_die
    # One crash before images are processed alone.
    attempts.MAX_STARTS = 1
    resources = worker.Resources(cpus=1, has_gpu=False, shares_weights=False)
    actor = worker.BatchWorker(config.model, config.output, job, run, resources)
    lists, places = np.array(job.parts()).T
    for counts in actor({"list": lists, "place": places}):
        print(json.dumps(counts), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
