"""A relay left without workers, in this process."""

import asyncio
from pathlib import Path

import pytest

from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.proxy import server as relay
from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.servers.torchserve.proxy.process import departures_file, port_file, presence_file
from d2serve.servers.torchserve.proxy.server import Relay
from d2serve.servers.torchserve.proxy.shared_files import Departures, FileLock

REQUEST = b"POST /invocations HTTP/1.1\r\ncontent-length: 0\r\n\r\n"


class Silent:
    """A server that reads and never answers, whatever its clients do."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None] | None] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.append(asyncio.current_task())
        while await reader.read(100):
            pass
        writer.close()


async def abandoned(port: int, state: Path, worker: FileLock) -> tuple[bytes, bool]:
    """What a client hears whose request waits when the last worker goes for good, and whether the
    relay lets go of the port."""
    silent = Silent()
    async with await asyncio.start_server(silent, LOOPBACK, 0) as server:
        own = FileLock(port_file(state))
        assert own.take()
        opened = asyncio.Event()
        passing = Relay(
            server.sockets[0].getsockname(),
            FileLock(presence_file(state)),
            Departures(departures_file(state)),
            Limits(),
        ).serve((LOOPBACK, port), own, opened.set)
        serving = asyncio.create_task(passing)
        await opened.wait()
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        writer.write(REQUEST)
        await writer.drain()
        await asyncio.sleep(3 * relay.ABANDONED_S)
        assert not serving.done()
        worker.release()
        heard = await reader.read()
        writer.close()
        await serving
        await asyncio.gather(*filter(None, silent.tasks))
        return heard, FileLock(port_file(state)).take()


def test_nobody_waits_for_workers_that_do_not_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "ABANDONED_S", 0.3)
    state = tmp_path / "server"
    worker = FileLock(presence_file(state))
    worker.share()
    heard, free = asyncio.run(abandoned(Ports.free().inference, state, worker))
    assert heard.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"retry-after: 1\r\n" in heard
    assert b"no worker is ready" in heard
    assert free
