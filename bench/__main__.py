"""`python -m bench COMMAND [options]`: every benchmark, load test and soak of d2serve."""

import sys
from collections.abc import Sequence
from importlib import import_module

from d2serve.cli.run import run

USAGE_ERROR = 2
# Modules with `main(arguments) -> exit code`, and help; loaded on demand, for they import slowly.
COMMANDS = {
    "stages": ("bench.stages.command", "time each stage of a request beside its baselines"),
    "gpu": (
        "bench.gpu.command",
        "network, requests and HTTP on a CUDA GPU, beside baselines",
    ),
    "baselines": ("bench.baselines.command", "requests/s beside other servers of the same model"),
    "peers": ("bench.peers", "the backbone on a CPU beside OpenVINO and ONNX Runtime"),
    "latency": ("bench.latency", "latency of a lone client beside the bare pipeline"),
    "load": ("bench.load.command", "load test over settings and clients, with a recommendation"),
    "soak": ("bench.soak.command", "mixed and hostile traffic with killed workers, checked"),
    "overload": ("bench.overload", "four times the requests that a server can process"),
    "hostile": ("bench.hostile", "hostile HTTP clients beside a normal one"),
    "ray-chaos": ("bench.ray_chaos.command", "killed replicas, proxies and nodes of Ray Serve"),
    "batch": ("bench.batch.command", "batch inference on Ray Data beside a bare loop"),
    "batch-chaos": ("bench.batch.chaos", "a batch job that is killed and resumed, checked"),
    "memory": ("bench.memory", "memory of a worker beside that of the bare model"),
    "ray": ("bench.ray.command", "Ray Serve and its batches beside the ASGI server"),
    "costs": ("bench.costs", "memory, start and overhead per request of each server"),
    "accuracy": ("bench.accuracy", "AP of the bundled model in each precision"),
    "cold-start": ("bench.worker_process", "time and memory of a worker's start"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code, or 2 for an unknown command."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in COMMANDS:
        return int(import_module(COMMANDS[words[0]][0]).main(words[1:]))
    lines = [f"  {name:12}{text}" for name, (_, text) in COMMANDS.items()]
    print("usage: python -m bench COMMAND [options]", "", *lines, sep="\n")
    if words and words[0] in ("-h", "--help"):
        return 0
    received = f"received {words[0]!r}" if words else "no command received"
    print(f"error: COMMAND: {received}, expected one of {', '.join(COMMANDS)}", file=sys.stderr)
    return USAGE_ERROR


if __name__ == "__main__":
    run(main)
