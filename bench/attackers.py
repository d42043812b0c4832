"""Hostile clients in a process of their own, which imports little and starts soon."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from threading import Thread

from d2serve.errors import CommandError
from d2serve.servers.exposure import LOOPBACK
from tests.serving.hostile.cases import Case, named
from tests.serving.hostile.wire import Address

# A client that sends predictions as fast as it can is an ordinary second client, not a hostile one.
PREDICTION_PAUSE_S = 1.0
# The hostile clients are usually on other machines, and must not take the server's CPU time.
NICENESS = 15
START_TIMEOUT_S = 120
# A second address of this machine, because servers limit clients by their address. Linux has it.
HOSTILE_SOURCE = "127.0.0.2"


def source_for(address: Address) -> str:
    """The address of hostile clients, which differs from that of a normal client.

    Empty if the server is on another machine, or this one has no second address.
    """
    with suppress(OSError), socket.socket() as probe:
        probe.bind((HOSTILE_SOURCE, 0))
        return HOSTILE_SOURCE if address[0] == LOOPBACK else ""
    return ""


def attack(address: Address, name: str, clients: int, started: Event) -> None:
    """Be hostile clients of one kind until this process is killed."""
    os.nice(NICENESS)
    [case], source = named([name]), source_for(address)

    def repeat() -> None:
        while True:
            with suppress(OSError, AssertionError):
                case.play(address, source)
            time.sleep(PREDICTION_PAUSE_S if case.is_prediction else 0)

    threads = [Thread(target=repeat) for _ in range(clients)]
    for thread in threads:
        thread.start()
    started.set()


@contextmanager
def attacked(address: Address, case: Case, clients: int) -> Iterator[None]:
    """Run hostile clients in another process while the block runs.

    Raises:
        CommandError: the process has not started in time.
    """
    context = get_context("spawn")
    started = context.Event()
    process = context.Process(target=attack, args=(address, case.name, clients, started))
    process.start()
    try:
        if not started.wait(START_TIMEOUT_S):
            raise CommandError("the process of the hostile clients has not started in time")
        yield
    finally:
        process.kill()
        process.join()
