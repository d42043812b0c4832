"""Clients that crawl or hang up: nobody else notices."""

import socket
import struct
from contextlib import ExitStack
from pathlib import Path

from d2serve.servers.torchserve.launcher.server import REQUESTS
from tests.serving.faults.faulty import CONNECTIONS, GOOD, Faulty, error_code, wait_until
from tests.serving.traffic import npy_body, zeros

SLOW = 20


def request(body: bytes, *fields: str) -> bytes:
    lines = ["POST /invocations HTTP/1.1", "Host: a", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join([*lines, "", ""]).encode() + body


def reset(connection: socket.socket) -> None:
    """Closes it as a process that is killed does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_clients_that_send_a_byte_at_a_time_hold_nobody_up(faulty: Faulty, jpeg: Path) -> None:
    sent = request(jpeg.read_bytes(), "Content-Type: image/jpeg")
    with ExitStack() as stack:
        crawling = [stack.enter_context(faulty.connect()) for _ in range(SLOW)]
        for position in range(8):
            for client in crawling:
                client.sendall(sent[position : position + 1])
            assert faulty.ask(GOOD).status_code == 200
        for client in crawling[:2]:
            client.sendall(sent[8:])
            assert client.recv(15) == b"HTTP/1.1 200 OK"


def test_clients_that_hang_up_before_their_answer_reach_no_network(faulty: Faulty) -> None:
    body = npy_body(zeros(GOOD))
    sent = request(body.content, f"Content-Type: {body.content_type}")
    held = faulty.hold()
    for waiting, hang_up in enumerate((reset, socket.socket.close, half_close), 1):
        client = faulty.connect()
        client.sendall(sent)
        faulty.wait_for_queue(waiting)
        hang_up(client)
    stays = faulty.ask_meanwhile(GOOD)
    faulty.wait_for_queue(4)
    faulty.let_go()
    assert held.result().status_code == 200
    answer = stays.result()
    assert answer.status_code == 200
    assert 'batch;desc="1"' in answer.headers["server-timing"]
    assert faulty.ask(GOOD).status_code == 200
    logged = "the client has hung up"
    wait_until(lambda: faulty.server.logs.text(REQUESTS).count(logged) == 3)


def half_close(client: socket.socket) -> None:
    """It would still listen, but nobody can tell; TorchServe has no answer for it either."""
    client.shutdown(socket.SHUT_WR)
    with client, client.makefile("rb") as answer:
        assert b" 200 " not in answer.read()


def test_connections_without_a_request_keep_nobody_out(faulty: Faulty) -> None:
    with ExitStack() as stack:
        for sent in (b"", b"POST /invoc") * CONNECTIONS * 2:
            stack.enter_context(faulty.connect()).sendall(sent)
        assert faulty.ask(GOOD).status_code == 200
        assert faulty.is_healthy()


def test_beyond_the_most_connections_requests_are_refused_and_pings_answered(
    faulty: Faulty, jpeg: Path
) -> None:
    sent = request(jpeg.read_bytes(), "Content-Type: image/jpeg")
    with ExitStack() as stack:
        crawling = [stack.enter_context(faulty.connect()) for _ in range(CONNECTIONS)]
        for client in crawling:
            client.sendall(sent[:-1])
        for _ in range(3):
            refused = faulty.ask(GOOD)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert error_code(refused) == "overloaded"
            assert "too many connections" in refused.text
            assert faulty.is_healthy()
        crawling[0].sendall(sent[-1:])
        assert crawling[0].recv(15) == b"HTTP/1.1 200 OK"
        assert faulty.ask(GOOD).status_code == 200


def test_a_client_that_hangs_up_in_its_answer_fails_nobody(faulty: Faulty, jpeg: Path) -> None:
    sent = request(jpeg.read_bytes(), "Content-Type: image/jpeg", "Accept: image/png")
    for _ in range(4):
        client = faulty.connect()
        client.sendall(sent)
        beside = faulty.ask_meanwhile(GOOD)
        assert client.recv(5) == b"HTTP/"
        reset(client)
        assert beside.result().status_code == 200
