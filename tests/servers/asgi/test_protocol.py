"""Connections to a real server: timeouts, malformed requests and closing."""

import json
import math
import re
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from d2serve.messages import MAX_HEAD_BYTES, NO_STAGES, HttpRequest
from d2serve.servers.asgi import slices
from d2serve.servers.asgi.app import create_app
from d2serve.servers.asgi.body import MAX_DROPPED_BYTES
from d2serve.servers.asgi.protocol import SPARE_CONNECTIONS
from d2serve.serving.requests import HttpResponse
from d2serve.settings import Settings
from tests.certificates import self_signed
from tests.polling import wait_until
from tests.servers.asgi.fakes import FakePipeline, echo
from tests.servers.asgi.running import PATIENT, TIMEOUT_S, RunningServer, read_all, running

PING = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
LAST_PING = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
POST = b"POST /invocations HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LARGE = 20_000_000
# Of a server for clients that wait until it has given up.
IMPATIENT_S = 1.0
IMPATIENT = replace(PATIENT, head_s=IMPATIENT_S, delivery_s=IMPATIENT_S)


def respond(request: HttpRequest) -> HttpResponse:
    """An echo, or a large response for the query `large`."""
    if "large" in request.query:
        return HttpResponse(200, "application/x-npy", b"x" * LARGE)
    return echo(request)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    pipeline = FakePipeline(respond, Settings(max_request_bytes=1_000_000))
    with running(create_app({"shapes": pipeline}, body_timeout_s=600)) as served:
        yield served


@pytest.fixture(scope="module")
def impatient() -> Iterator[RunningServer]:
    """A server with short timeouts, except between requests."""
    app = create_app({"shapes": FakePipeline(respond)}, body_timeout_s=IMPATIENT_S)
    with running(app, IMPATIENT) as served:
        yield served


@pytest.fixture(autouse=True)
def _no_errors_yet(server: RunningServer, impatient: RunningServer) -> None:
    for each in (server, impatient):
        each.errors.clear()
        each.ids.clear()


def statuses_of(content: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", content)]


def error_of(content: bytes) -> str:
    """The code of the only response, which closes the connection."""
    head, _, body = content.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    assert b"content-type: application/json" in head.lower()
    assert f"server-timing: {NO_STAGES}\r\n".encode() in head.lower() + b"\r\n"
    assert len(re.findall(rb"x-request-id: [0-9a-f]{32}", head.lower())) == 1
    code: str = json.loads(body)["error"]["code"]
    return code


def test_requests_share_a_connection(server: RunningServer) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=TIMEOUT_S) as client:
        connections = set()
        for index in range(3):
            response = client.post("/invocations", content=b"%d" % index * 100_000)
            assert response.json()["parts"][0][1] == f"{index}" * 100_000
            connections |= server.state.connections
        assert len(connections) == 1


def test_pipelined_requests_are_served_in_order(server: RunningServer) -> None:
    # More than Python's limit of nested calls.
    content = server.exchange(PING * 1_100 + LAST_PING)
    assert statuses_of(content) == [200] * 1_101


def test_pipelined_bodies_are_kept_apart(server: RunningServer) -> None:
    keep = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
    content = server.exchange(keep + b"one" + keep + b"two" + POST + b"Content-Length: 2\r\n\r\nab")
    assert [body for body in (b'"one"', b'"two"', b'"ab"') if body in content] == [
        b'"one"',
        b'"two"',
        b'"ab"',
    ]
    assert content.index(b'"one"') < content.index(b'"two"') < content.index(b'"ab"')


UNKNOWN = b"POST /unknown HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize("size", [0, 10, MAX_DROPPED_BYTES])
def test_a_client_that_is_rejected_keeps_its_connection(server: RunningServer, size: int) -> None:
    """The rest of the body is dropped, whether or not it has arrived before the response."""
    head = UNKNOWN + b"Content-Length: %d\r\n\r\n" % size
    with server.connect() as connection:
        connection.sendall(head)
        response = connection.recv(4096)
        assert statuses_of(response) == [404]
        assert b"connection" not in response.lower()
        connection.sendall(b"x" * size + head + b"x" * size + LAST_PING)
        assert statuses_of(read_all(connection)) == [404, 200]


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: %d" % (MAX_DROPPED_BYTES + 1),
        b"Transfer-Encoding: chunked",
        b"Content-Length: 5\r\nExpect: 100-continue",
    ],
)
def test_a_rejected_connection_closes_if_the_rest_is_large_or_uncertain(
    server: RunningServer, framing: bytes
) -> None:
    assert error_of(server.exchange(UNKNOWN + framing + b"\r\n\r\n")) == "not_found"


def send_byte_by_byte(client: socket.socket, byte: bytes) -> bytes:
    """Send a byte again and again until the server closes; return its responses."""
    client.settimeout(0.1)
    received = bytearray()
    for _ in range(600):
        try:
            client.sendall(byte)
            chunk = client.recv(4096)
        except TimeoutError:
            continue
        except ConnectionError:
            return bytes(received)
        if not chunk:
            return bytes(received)
        received += chunk
    pytest.fail("the connection is still open")


def test_the_rest_of_a_dropped_body_must_arrive_in_time(impatient: RunningServer) -> None:
    with impatient.connect() as client:
        client.sendall(UNKNOWN + b"Content-Length: 1000\r\n\r\n")
        # Progress of single bytes does not count.
        assert statuses_of(send_byte_by_byte(client, b"x")) == [404]


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_http_1_0_and_1_1(server: RunningServer, version: bytes) -> None:
    head = b"GET /ping HTTP/" + version + b"\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert statuses_of(server.exchange(head)) == [200]


def test_head_has_no_body(server: RunningServer) -> None:
    content = server.exchange(b"HEAD /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert statuses_of(content) == [200]
    assert b"content-length: 20" in content
    assert content.endswith(b"\r\n\r\n")


def test_an_offer_to_upgrade_is_ignored(server: RunningServer) -> None:
    offer = b"Connection: Upgrade, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n\r\n"
    assert statuses_of(server.exchange(LAST_PING[:-2].replace(b"Connection: close\r\n", offer)))


def test_chunks_of_one_byte(server: RunningServer) -> None:
    content = server.exchange(CHUNKED + b"1\r\nx\r\n" * 4_000 + b"0\r\n\r\n")
    assert statuses_of(content) == [200]
    assert b"x" * 4_000 in content


def test_a_chunked_body_waits_only_after_slices_that_took_time(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slices, "SLICES_S", math.inf)
    monkeypatch.setattr(slices, "PAUSE_FACTOR", 1e9)
    chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
    assert statuses_of(server.exchange(CHUNKED + chunk * 15 + b"0\r\n\r\n")) == [200]


def test_other_clients_are_served_while_one_sends_chunks_of_one_byte(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # After the first slice, the server waits for longer than the test.
    monkeypatch.setattr(slices, "PAUSE_FACTOR", 1e9)
    with server.connect() as hostile, httpx.Client(timeout=TIMEOUT_S) as normal:
        hostile.sendall(CHUNKED + b"1\r\nx\r\n" * 30_000 + b"zz\r\n")
        for _ in range(5):
            assert normal.get(f"http://127.0.0.1:{server.port}/ping").status_code == 200
        hostile.setblocking(False)
        with pytest.raises(BlockingIOError):  # the server has not parsed all chunks
            hostile.recv(1)
        connection = server.connection_of(hostile)
        connection.loop.call_soon_threadsafe(connection.transport.abort)


def test_a_head_may_arrive_byte_by_byte(server: RunningServer) -> None:
    with server.connect() as client:
        for index in range(len(LAST_PING)):
            client.sendall(LAST_PING[index : index + 1])
        assert statuses_of(read_all(client)) == [200]


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /ping HTTP/1.1\r\n\r\n",
        b"GET /ping\r\n\r\n",
        b"GET /pi ng HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\nbad header: 1\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3\r\nabcde0\r\n\r\n",
        CHUNKED + b"0\r\n\n",
        CHUNKED + b"0\r\nA: b\n\r\n",
        b"GET /ping HTTP/1.1\nHost: x\n\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
        b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\r\n",
        b"GET /ping HTTP/1.1\rHost: x\r\r",
        b"\r" + PING,
    ],
)
def test_a_malformed_request_is_400(server: RunningServer, sent: bytes) -> None:
    assert error_of(server.exchange(sent)) == "bad_request"
    assert [error.status for error in server.errors] == [400]


def test_a_malformed_body_is_reported_with_the_id_of_its_request(server: RunningServer) -> None:
    head = CHUNKED.replace(b"Host: x", b"Host: x\r\nX-Request-Id: order-42")
    # The application has taken the request before its body turns out to be malformed.
    content = server.exchange(head + b"3\r\nabc\r\n", 0.2, b"zz\r\n")
    assert statuses_of(content) == [400]
    assert b"x-request-id: order-42\r\n" in content
    assert server.ids == ["order-42"]


def test_the_reported_id_is_that_of_the_response(server: RunningServer) -> None:
    content = server.exchange(PING + b"\x16\x03\x01")
    [request_id] = server.ids
    assert content.count(b"x-request-id: " + request_id.encode()) == 1


def test_a_malformed_request_after_a_good_one(server: RunningServer) -> None:
    assert statuses_of(server.exchange(PING + b"\x16\x03\x01")) == [200, 400]


def test_a_head_that_is_too_large_is_431(server: RunningServer) -> None:
    head = b"GET /ping HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 20_000 + b"\r\n"
    assert error_of(server.exchange(head)) == "headers_too_large"


@pytest.mark.parametrize(("more", "status"), [(-1, 200), (0, 200), (1, 431), (1_000, 431)])
def test_the_size_of_a_complete_head_is_limited(
    server: RunningServer, more: int, status: int
) -> None:
    head = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: "
    head += b"y" * (MAX_HEAD_BYTES + more - len(head) - 4) + b"\r\n\r\n"
    assert statuses_of(server.exchange(head)) == [status]


@pytest.mark.parametrize("sent", [b"GET /ping HT", PING + b"GET"])
def test_a_slow_head_is_408(impatient: RunningServer, sent: bytes) -> None:
    content = impatient.exchange(sent)
    assert statuses_of(content) == [200] * sent.count(PING) + [408]
    assert [error.code for error in impatient.errors] == ["request_timeout"]


def test_a_head_of_trickling_bytes_is_408(impatient: RunningServer) -> None:
    with impatient.connect() as client:
        client.sendall(b"GET /")
        assert error_of(send_byte_by_byte(client, b"a")) == "request_timeout"


def test_a_connection_without_a_request_is_closed(impatient: RunningServer) -> None:
    assert impatient.exchange() == b""
    assert impatient.errors == []


def test_a_slow_body_is_408(impatient: RunningServer) -> None:
    head = POST.replace(b"Connection: close\r\n", b"")
    content = impatient.exchange(head + b"Content-Length: 5000\r\n\r\nabc")
    assert error_of(content) == "request_timeout"


def test_a_client_that_is_slow_between_requests_keeps_its_connection(
    impatient: RunningServer,
) -> None:
    content = impatient.exchange(PING, 2 * IMPATIENT_S, LAST_PING)
    assert statuses_of(content) == [200, 200]


@pytest.mark.parametrize("sends_lines", [False, True])
def test_an_idle_connection_is_closed(sends_lines: bool) -> None:
    """Empty lines before a request do not keep it open."""
    with running(create_app({"shapes": FakePipeline()}), timeout_keep_alive=1) as server:
        with server.connect() as client:
            client.sendall(PING)
            content = send_byte_by_byte(client, b"\r\n") if sends_lines else read_all(client)
            assert statuses_of(content) == [200]
        assert server.errors == []


def test_the_response_to_a_body_that_is_too_large_arrives(server: RunningServer) -> None:
    body = b"x" * 8_000_000
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with server.connect() as client:
        client.sendall(head)
        for start in range(0, 400_000, 100_000):
            # Without time to linger, the connection would be reset.
            client.sendall(body[start : start + 100_000])
            time.sleep(0.1)
        assert error_of(read_all(client)) == "too_large"


def test_a_client_that_waits_for_100_is_refused_before_it_sends(server: RunningServer) -> None:
    head = POST + b"Content-Length: 8000000\r\nExpect: 100-continue\r\n\r\n"
    content = server.exchange(head)
    assert statuses_of(content) == [413]


def test_a_client_that_waits_for_100_gets_it(server: RunningServer) -> None:
    with server.connect() as client:
        client.sendall(POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert statuses_of(client.recv(1000)) == [100]
        client.sendall(b"abc")
        assert b'"abc"' in read_all(client)


def test_a_slow_reader_is_disconnected(impatient: RunningServer) -> None:
    with impatient.connect(receive_buffer=4096) as client:
        wait_until(lambda: impatient.state.connections)
        client.sendall(b"POST /invocations?large=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: not impatient.state.connections)
        assert len(read_all(client)) < LARGE


def test_a_reader_that_makes_progress_gets_all(impatient: RunningServer) -> None:
    """It takes at least 200 parts, so about three times the limit."""
    with impatient.connect(receive_buffer=65536) as client:
        client.sendall(POST.replace(b"/invocations", b"/invocations?large=1") + b"\r\n")
        size = 0
        while received := client.recv(100_000):
            size += len(received)
            time.sleep(0.015)
        assert size > LARGE


def test_the_longest_idle_connection_makes_room() -> None:
    app = create_app({"shapes": FakePipeline()})
    with running(app, max_connections=lambda: 1) as server:
        clients = [server.connect() for _ in range(SPARE_CONNECTIONS + 1)]
        wait_until(lambda: len(server.state.connections) == len(clients))
        assert statuses_of(server.exchange(LAST_PING)) == [200]
        assert read_all(clients[0]) in (b"", b"(reset)")
        clients[-1].sendall(LAST_PING)
        assert statuses_of(read_all(clients[-1])) == [200]
        for client in clients:
            client.close()


def test_tls(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    pipeline = FakePipeline(respond, Settings(max_request_bytes=1_000_000))
    app = create_app({"shapes": pipeline})
    chain, key = str(certificate.chain), str(certificate.key)
    limits = replace(PATIENT, delivery_s=IMPATIENT_S)
    with running(app, limits, ssl_certfile=chain, ssl_keyfile=key) as server:
        url = f"https://127.0.0.1:{server.port}"
        context = ssl.create_default_context(cafile=str(certificate.chain))
        with httpx.Client(base_url=url, verify=context, timeout=TIMEOUT_S) as client:
            assert client.post("/invocations", content=b"abc").json()["parts"] == [["", "abc"]]
            assert client.post("/invocations", content=b"x" * 2_000_000).status_code == 413
        # Plain HTTP to a TLS port.
        assert server.exchange(LAST_PING) == b""
        slow = server.connect(receive_buffer=4096)
        with context.wrap_socket(slow, server_hostname="127.0.0.1") as client_socket:
            client_socket.sendall(b"POST /invocations?large=1 HTTP/1.1\r\nHost: x\r\n\r\n")
            wait_until(lambda: not server.state.connections)


def test_a_disconnect_reaches_the_pipeline() -> None:
    pipeline = FakePipeline(respond=None)
    with running(create_app({"shapes": pipeline})) as server:
        client = server.connect()
        client.sendall(POST + b"Content-Length: 3\r\n\r\nabc")
        wait_until(lambda: pipeline.requests)
        assert not pipeline.requests[0].is_disconnected()
        client.shutdown(socket.SHUT_RDWR)
        client.close()
        wait_until(pipeline.requests[0].is_disconnected)
        pipeline.futures[0].set_result(HttpResponse(200, "text/plain", b""))


def test_empty_lines_before_a_request_are_ignored(server: RunningServer) -> None:
    keep = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\r\n"
    content = server.exchange(b"\r\n" + keep, b"\r", 0.1, b"\n\r\n" + LAST_PING)
    assert statuses_of(content) == [200, 200]


def test_a_request_may_follow_a_chunked_one(server: RunningServer) -> None:
    chunked = CHUNKED.replace(b"Connection: close\r\n", b"") + b"3\r\nabc\r\n0\r\n\r\n"
    assert statuses_of(server.exchange(chunked + chunked + LAST_PING)) == [200, 200, 200]


def test_responses_do_not_wait_for_acknowledgements(server: RunningServer) -> None:
    with server.connect() as client:
        client.sendall(PING)
        assert statuses_of(client.recv(1000)) == [200]
        connected = server.connection_of(client).transport.get_extra_info("socket")
        assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
