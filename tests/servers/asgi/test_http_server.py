"""uvicorn's server without its frequent timer."""

import asyncio

import uvicorn

from d2serve.servers.asgi.http_server import DATE_INTERVAL_S, HttpServer
from tests import virtual_time


async def no_app(*_: object) -> None:
    raise AssertionError("no request is sent")


def test_an_idle_server_wakes_up_once_in_an_interval_and_stops_at_once() -> None:
    ticks: list[float] = []

    class Counting(HttpServer):
        async def on_tick(self, counter: int) -> bool:
            ticks.append(asyncio.get_running_loop().time())
            return await super().on_tick(counter)

    async def run() -> None:
        server, loop = Counting(uvicorn.Config(no_app)), asyncio.get_running_loop()
        started = loop.time()
        loop.call_later(2.5 * DATE_INTERVAL_S, server.stop)
        await server.main_loop()
        assert server.server_state.default_headers[0][0] == b"date"
        times = [round((tick - started) / DATE_INTERVAL_S, 2) for tick in ticks]
        assert times == [0.0, 1.0, 2.0, 2.5]

    virtual_time.run(run())
