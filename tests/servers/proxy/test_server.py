"""A proxy server without workers, in this process."""

import asyncio
from pathlib import Path

import pytest

from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from d2serve.servers.torchserve.proxy import server as proxy_server
from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.servers.torchserve.proxy.process import disconnects_file, port_file, workers_file
from d2serve.servers.torchserve.proxy.server import ProxyServer
from d2serve.servers.torchserve.proxy.shared_files import DisconnectTable, FileLock

REQUEST = b"POST /invocations HTTP/1.1\r\ncontent-length: 0\r\n\r\n"


class SilentServer:
    """A server that reads and never responds."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None] | None] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.append(asyncio.current_task())
        while await reader.read(100):
            pass
        writer.close()


async def lose_the_last_worker(port: int, state: Path, worker: FileLock) -> tuple[bytes, bool]:
    """Return the response to a request that was waiting, and whether the port's lock is free."""
    silent = SilentServer()
    async with await asyncio.start_server(silent, LOOPBACK, 0) as upstream:
        port_lock = FileLock(port_file(state))
        assert port_lock.try_acquire()
        opened = asyncio.Event()
        server = ProxyServer(
            upstream.sockets[0].getsockname(),
            FileLock(workers_file(state)),
            DisconnectTable(disconnects_file(state)),
            Limits(),
        )
        serving = asyncio.create_task(server.serve((LOOPBACK, port), port_lock, opened.set))
        await opened.wait()
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        writer.write(REQUEST)
        await writer.drain()
        await asyncio.sleep(3 * proxy_server.NO_WORKER_TIMEOUT_S)
        assert not serving.done()
        worker.release()
        response = await reader.read()
        writer.close()
        await serving
        await asyncio.gather(*filter(None, silent.tasks))
        return response, FileLock(port_file(state)).try_acquire()


def test_the_server_stops_when_no_worker_has_been_ready_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy_server, "NO_WORKER_TIMEOUT_S", 0.3)
    state = tmp_path / "server"
    worker = FileLock(workers_file(state))
    worker.acquire_shared()
    response, is_free = asyncio.run(lose_the_last_worker(Ports.free().inference, state, worker))
    assert response.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"retry-after: 1\r\n" in response
    assert b"no worker is ready" in response
    assert is_free
