"""The load generator against a server that responds as a test wants."""

import asyncio
import io
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.loadgen import client as clients
from bench.loadgen import generator
from bench.loadgen.client import CLOSED, KEPT, MARK, NO_RESPONSE, Client, Group, Reply, Request
from bench.loadgen.generator import ClosedLoop, OpenLoop, Plan, Record, Recording, generate
from bench.loadgen.load import image_requests, measure, summarise, work_in
from tests.bench.fake_server import GOOD, FakeServer, Patch, running
from tests.bodies import image_bytes, npy_bytes

SECOND = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BODY = b"an image" * 1000
NOWHERE = "http://127.0.0.1:9/"
RAW, SLOW, RESETS = clients.RAW, clients.SLOW, (clients.RESET_EARLY, clients.RESET_LATE)
BOTH = pytest.mark.parametrize("behaviour", [KEPT, CLOSED])


def send(url: str, *behaviours: str, pause_s: float = 0.0) -> list[Reply]:
    async def run() -> list[Reply]:
        client, replies = Client(url, 10), []
        for behaviour in behaviours:
            request = Request("a", BODY, {"Content-Type": "image/jpeg"}, behaviour)
            replies.append(await client.send(request, b"x\r\n\r\n" if behaviour == RAW else BODY))
            await asyncio.sleep(pause_s)
        client.close()
        return replies

    return asyncio.run(run())


@BOTH
def test_a_request_gets_its_response(behaviour: str) -> None:
    with running(FakeServer()) as fake:
        replies = send(fake.url, *[behaviour] * 3)
    assert replies == [Reply(200, GOOD, True, str(number)) for number in range(3)]
    assert fake.bodies == {BODY: 3}
    assert fake.headers[0]["Content-Type"] == "image/jpeg"
    assert fake.connections == (1 if behaviour == KEPT else 3)


def test_a_second_response_is_noticed() -> None:
    with running(FakeServer(surplus=SECOND)) as fake:
        [alone] = send(fake.url, CLOSED)
        kept = send(fake.url, KEPT, KEPT, pause_s=0.5)
    assert (alone.body, alone.surplus) == (GOOD, len(SECOND))
    assert [(reply.body, reply.surplus) for reply in kept] == [(GOOD, 0), (GOOD, len(SECOND))]
    assert clients.parse(b"not HTTP") == Reply(surplus=8)


@BOTH
def test_a_request_without_a_whole_response_is_not_sent_again(behaviour: str) -> None:
    def hang_up(_: int) -> tuple[int, bytes]:
        raise ConnectionError

    with running(FakeServer(hang_up)) as fake:
        assert send(fake.url, behaviour, behaviour) == [Reply()] * 2
    assert fake.bodies == {BODY: 2}
    with running(FakeServer(declared_extra=9)) as fake:
        [reply] = send(fake.url, behaviour)
    assert (reply.status, reply.body, reply.whole) == (200, GOOD, False)


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_response_in_chunks_is_joined(size: int) -> None:
    with running(FakeServer(chunk=size)) as fake:
        replies = send(fake.url, KEPT, KEPT)
    assert [(reply.body, reply.whole) for reply in replies] == [(GOOD, True)] * 2
    assert fake.connections == 1
    for missing in (1, 4, 20):
        with running(FakeServer(chunk=size, declared_extra=missing)) as fake:
            [reply] = send(fake.url, KEPT)
        assert (reply.status, reply.whole) == (200, False)


@pytest.mark.parametrize("head", ["HTTP/1.0 200 OK", "HTTP/1.1 200 OK\r\nConnection: close"])
def test_a_response_may_end_with_the_connection_which_is_not_used_again(head: str) -> None:
    length = "" if head.startswith("HTTP/1.0") else f"\r\nContent-Length: {len(GOOD)}"

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"{head}{length}\r\nX-Request-Id:7\r\n\r\n".encode() + GOOD)
        try:
            await asyncio.sleep(0.2)
        finally:
            writer.close()

    async def run() -> list[Reply]:
        server = await asyncio.start_server(respond, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            client = Client(f"http://127.0.0.1:{port}/path?a=b", 10)
            replies = [await client.send(Request("a", b"{}"), b"{}") for _ in range(2)]
            client.close()
            return replies

    assert asyncio.run(run()) == [Reply(200, GOOD, True, "7")] * 2


def test_a_connection_that_ends_and_a_missing_server() -> None:
    with running(FakeServer(closes=True)) as fake:
        assert [reply.whole for reply in send(fake.url, KEPT, KEPT)] == [True, True]
    assert fake.connections == 2
    assert send(NOWHERE, KEPT, CLOSED, RAW, SLOW, *RESETS) == [Reply()] * 6


def test_clients_that_disconnect_get_no_response(monkeypatch: Patch) -> None:
    monkeypatch.setattr(clients, "SLOW_PAUSE_S", 0)
    with running(FakeServer()) as fake:
        assert send(fake.url, SLOW, *RESETS) == [Reply()] * 3
        assert fake.bodies == {BODY: 1}
        assert send(fake.url, RAW)[0].surplus > 0
    assert len(fake.headers) == 1


@pytest.fixture
def images(tmp_path: Path) -> list[Request]:
    for name, content in {"a.jpg": b"small", "b.png": b"large" * 1000}.items():
        (tmp_path / name).write_bytes(content)
    return image_requests(sorted(tmp_path.iterdir()))


def test_a_closed_loop_sends_images_in_turn(images: list[Request], monkeypatch: Patch) -> None:
    monkeypatch.setenv("http_proxy", NOWHERE)
    with running(FakeServer(lag_s=0.02)) as fake:
        load = measure(fake.url, images, ClosedLoop(4), 1.0, warm_up_s=0.2)
    assert (load.statuses, load.failures) == ({200: load.requests}, 0)
    assert abs(load.requests_per_s - load.requests) <= 4  # those in progress at start and end
    assert 0 < load.requests < len(fake.headers)
    assert max(fake.bodies.values()) - min(fake.bodies.values()) <= 4
    assert {headers["Content-Type"] for headers in fake.headers} == {"image/jpeg", "image/png"}
    assert 20 <= load.latency_ms[50] <= load.latency_ms[90] <= load.latency_ms[99]


def test_failures_are_counted_and_are_not_throughput(images: list[Request]) -> None:
    responses = [(200, GOOD), (503, b'{"error": {}}'), (200, GOOD[:-1]), (200, b"")]
    with running(FakeServer(lambda number: responses[number % 4], lag_s=0.01)) as fake:
        load = measure(fake.url, images, ClosedLoop(1), 1.0, warm_up_s=0.1)
    good = round(load.requests_per_s)
    assert load.requests == sum(load.statuses.values())
    assert abs(load.failures - 3 * good) <= 5
    assert load.rejected_latency_ms


def test_an_open_loop_does_not_wait_and_gives_up_after_the_timeout(images: list[Request]) -> None:
    with running(FakeServer(lag_s=0.5)) as fake:
        load = measure(fake.url, images, OpenLoop(40), 1.0, warm_up_s=0.5)
    assert fake.most_at_once > 5
    assert load.requests > 20
    assert load.statuses == {200: load.requests}
    with running(FakeServer(lag_s=3)) as fake:
        load = measure(fake.url, images, OpenLoop(20), 0.5, warm_up_s=0, timeout_s=0.3)
    assert load.statuses == {NO_RESPONSE: load.requests}


def test_groups_are_mixed_and_each_request_has_a_mark_of_its_own(tmp_path: Path) -> None:
    marked, other = b'{"id": "' + MARK + b'"}', b'{"id": "other"}'
    alone = Request("closed", other, {}, CLOSED)
    groups = [Group(0.75, [Request("kept", marked)]), Group(0.25, [alone])]
    recording = Recording()
    with running(FakeServer(echo=True, lag_s=0.005)) as fake:
        plan = Plan(fake.url, groups, ClosedLoop(4), 1e9, bodies=tmp_path, max_requests=200)
        generate(plan, recording)
    kept = [record for record in recording.records if record.name == "kept"]
    assert len(kept) / len(recording.records) == pytest.approx(0.75, abs=0.15)
    assert all(record.good for record in recording.records)
    assert [count for body, count in fake.bodies.items() if body != other] == [1] * len(kept)
    assert {(tmp_path / record.digest).read_bytes() for record in kept} == {marked}
    assert len(list(tmp_path.iterdir())) == 2
    with running(FakeServer()) as fake:
        generate(Plan(fake.url, groups, ClosedLoop(3), 1e9, max_requests=20), Recording())
    assert len(fake.headers) == 20


def test_throughput_is_by_completion_and_latency_by_due_times() -> None:
    times = [(-0.5, -0.1, 200, True), (-0.2, 0.1, 200, True), (0.5, 0.9, 200, True)]
    times += [(1.0, 1.1, 503, True), (1.2, 1.3, 200, False), (1.8, 2.6, 200, True)]
    times += [(1.9, 9.0, NO_RESPONSE, False), (2.1, 2.2, 200, True)]
    load = summarise(Recording([Record(*each) for each in times], 1000.0, 1.9), 2.0)
    assert (load.requests, load.failures, load.requests_per_s) == (5, 3, 1.0)
    assert load.latency_ms[50] == pytest.approx(600)  # of 400 and 800
    assert load.statuses == {0: 1, 200: 3, 503: 1}
    assert load.generator_cpu_percent == 95


def test_work_at_the_edges_of_a_window_counts_in_part() -> None:
    times = [(-3.0, 1.0), (0.5, 1.5), (1.0, 3.0), (-2.0, -1.0), (2.5, 3.0)]
    records = [Record(due, done, 200, True) for due, done in times]
    assert work_in(2.0, records) == pytest.approx(0.25 + 1 + 0.5)
    failed = [*records, Record(0.0, 1.0, 503, True)]
    assert summarise(Recording(failed), 2.0).work_per_s == pytest.approx(1.75 / 2)


def test_whole_bodies_are_told_from_halves() -> None:
    np.savez_compressed(npz := io.BytesIO(), boxes=np.zeros(3))
    jpeg, png = (image_bytes(Image.new("RGB", (9, 9)), name) for name in ("JPEG", "PNG"))
    encoded = [npy_bytes(np.zeros(3)), npz.getvalue(), jpeg, png]
    assert all(map(clients.is_whole, [b"{}", b"[1, 2]", b'{"a": 1}\n{"a": 2}\n', *encoded]))
    halves = [b"", b"{", b'{"a": [1, 2', b"Internal error", jpeg[:-3], png[:-3]]
    assert not any(map(clients.is_whole, halves))


def test_arrivals_are_a_poisson_process_and_images_come_in_shuffled_rounds() -> None:
    arrivals = list(generator.poisson_arrivals(50, within_s=200))
    assert arrivals == sorted(arrivals)
    assert len(arrivals) == pytest.approx(10_000, rel=0.03)
    counts = np.bincount(np.array(arrivals, dtype=int), minlength=200)
    assert np.var(counts) == pytest.approx(50, rel=0.35)
    rounds = generator.shuffled_rounds(range(8))
    first, second = list(islice(rounds, 8)), list(islice(rounds, 8))
    assert sorted(first) == sorted(second) == list(range(8))
    assert first != second
