"""`make bench-peers`: ours and its peers over HTTP, in turns, and what serving itself costs.

Writes peers.json and peers.md.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from bench.machine import describe_machine
from bench.peers.contests import (
    Tell,
    Terms,
    beside_bare_loop,
    beside_bare_request,
    beside_peer,
    serving,
)
from bench.peers.models import MODELS
from bench.peers.report import print_report, write_report
from bench.peers.rounds import Result
from bench.peers.servers import PEERS
from bench.progress import progress
from handler.settings import PRECISIONS
from scripts.errors import run

OUTPUT = Path("out", "bench")
ITSELF = "itself"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is asked for, prints the table and writes the files."""
    given = _parser().parse_args(arguments)
    terms = Terms(given.clients, given.seconds, given.rounds)
    machine = describe_machine(torch.device("cpu"))
    results: list[Result] = []
    with progress() as show, tempfile.TemporaryDirectory(prefix="d2serve-peers-") as folder:
        asked = [(name, each) for name in given.models for each in given.precisions]
        for number, (name, precision) in enumerate(asked):
            own_folder = Path(folder) / f"{name}-{precision}"
            own_folder.mkdir()
            tell = _tell(show, number / len(asked))
            for result in _measure(name, precision, given.peers, own_folder, terms, tell):
                results.append(result)
                # Each time, so that a run that is stopped leaves what it has.
                write_report(machine, results, given.output)
    print_report(machine, results)
    return 0


def _measure(
    name: str, precision: str, peers: Sequence[str], folder: Path, terms: Terms, tell: Tell
) -> Iterator[Result]:
    """One model beside each peer that can serve it, and, where asked for, beside itself."""
    tell(f"{name} {precision}: starting ours")
    with serving(MODELS[name](folder), precision, folder) as own:
        for peer in (PEERS[each] for each in peers if each != ITSELF):
            if name in peer.models:
                peer_folder = folder / peer.name
                peer_folder.mkdir()
                yield beside_peer(own, peer, peer_folder, terms, tell)
        if ITSELF in peers:
            served = beside_bare_loop(own, terms, tell)
            yield served
            yield from beside_bare_request(own, max(served.ours), terms, tell)


def _tell(show: Callable[[str, float], None], done: float) -> Tell:
    return lambda text: show(text, done)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench.peers", description=__doc__)
    everyone = (*PEERS, ITSELF)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["shapes"])
    parser.add_argument(
        "--peers",
        nargs="+",
        choices=everyone,
        default=everyone,
        help=f"{ITSELF} is our own pipeline without a server; default: all",
    )
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["fp32"])
    parser.add_argument("--clients", type=int, default=16, help="default: %(default)s")
    parser.add_argument(
        "--seconds",
        type=float,
        default=20,
        help="of one turn; r50 wants several batches of the slowest; default: %(default)s",
    )
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    run(main)
