"""Clients that send slowly or disconnect do not affect other clients."""

import socket
import struct
from contextlib import ExitStack
from pathlib import Path

from tests.serving.faults.faulty import CONNECTIONS, Faulty, error_code, wait_until
from tests.serving.faults.injection import GOOD
from tests.serving.traffic import npy_body, zeros

SLOW_CLIENTS = 20


def request(body: bytes, *fields: str) -> bytes:
    lines = ["POST /invocations HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join([*lines, "", ""]).encode() + body


def reset(connection: socket.socket) -> None:
    """Close the connection as if the process was killed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_clients_that_send_single_bytes_do_not_delay_other_clients(
    faulty: Faulty, jpeg: Path
) -> None:
    sent = request(jpeg.read_bytes(), "Content-Type: image/jpeg")
    with ExitStack() as stack:
        slow = [stack.enter_context(faulty.connect()) for _ in range(SLOW_CLIENTS)]
        for position in range(8):
            for client in slow:
                client.sendall(sent[position : position + 1])
            assert faulty.send(GOOD).status_code == 200
        for client in slow[:2]:
            client.sendall(sent[8:])
            assert client.recv(15) == b"HTTP/1.1 200 OK"


def test_requests_of_disconnected_clients_do_not_run(faulty: Faulty) -> None:
    body = npy_body(zeros(GOOD))
    sent = request(body.content, f"Content-Type: {body.content_type}")
    logged = "the client has disconnected"
    before = faulty.request_log.count(logged)
    held = faulty.hold()
    for queued, disconnect in enumerate((reset, socket.socket.close, half_close), 1):
        client = faulty.connect()
        client.sendall(sent)
        faulty.wait_for_queue(queued)
        disconnect(client)
    connected = faulty.submit(GOOD)
    faulty.wait_for_queue(4)
    faulty.release()
    assert held.result().status_code == 200
    response = connected.result()
    assert response.status_code == 200
    assert 'batch;desc="1"' in response.headers["server-timing"]
    assert faulty.send(GOOD).status_code == 200
    wait_until(lambda: faulty.request_log.count(logged) == before + 3)


def half_close(client: socket.socket) -> None:
    """It can still receive, but no server responds to such a client."""
    client.shutdown(socket.SHUT_WR)
    with client, client.makefile("rb") as response:
        assert b" 200 " not in response.read()


def test_connections_without_a_request_do_not_lock_out_other_clients(faulty: Faulty) -> None:
    with ExitStack() as stack:
        for sent in (b"", b"POST /invoc") * CONNECTIONS * 2:
            stack.enter_context(faulty.connect()).sendall(sent)
        assert faulty.send(GOOD).status_code == 200
        assert faulty.is_healthy()


def test_requests_beyond_the_connection_limit_are_rejected_and_pings_are_not(
    faulty: Faulty, jpeg: Path
) -> None:
    sent = request(jpeg.read_bytes(), "Content-Type: image/jpeg")
    with ExitStack() as stack:
        slow = [stack.enter_context(faulty.connect()) for _ in range(CONNECTIONS)]
        for client in slow:
            client.sendall(sent[:-1])
        for _ in range(3):
            rejected = faulty.send(GOOD)
            assert rejected.status_code == 503
            assert int(rejected.headers["retry-after"]) >= 1
            assert error_code(rejected) == "overloaded"
            assert "too many" in rejected.text
            assert faulty.is_healthy()
        slow[0].sendall(sent[-1:])
        assert slow[0].recv(15) == b"HTTP/1.1 200 OK"
        assert faulty.send(GOOD).status_code == 200


def test_a_disconnect_during_the_response_does_not_affect_other_clients(
    faulty: Faulty, jpeg: Path
) -> None:
    sent = request(jpeg.read_bytes(), "Content-Type: image/jpeg", "Accept: image/png")
    for _ in range(4):
        client = faulty.connect()
        client.sendall(sent)
        other = faulty.submit(GOOD)
        assert client.recv(5) == b"HTTP/"
        reset(client)
        assert other.result().status_code == 200
