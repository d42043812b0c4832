"""Clients that crawl or hang up: nobody else notices."""

import socket
import struct
from contextlib import ExitStack
from pathlib import Path

from tests.serving.faults.faulty import GOOD, Faulty

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


def test_clients_that_hang_up_before_their_answer_fail_nobody(faulty: Faulty, jpeg: Path) -> None:
    held = faulty.hold()
    for waiting in (1, 2):
        client = faulty.connect()
        client.sendall(request(jpeg.read_bytes(), "Content-Type: image/jpeg"))
        faulty.wait_for_queue(waiting)
        reset(client)
    stays = faulty.ask_meanwhile(GOOD)
    faulty.wait_for_queue(3)
    faulty.let_go()
    assert [held.result().status_code, stays.result().status_code] == [200, 200]
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
