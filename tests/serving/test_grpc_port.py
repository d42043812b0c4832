"""TorchServe's own gRPC API, which is not supported: what a client of it finds."""

import json
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from d2serve.servers.torchserve.launcher.ports import LOOPBACK
from d2serve.servers.torchserve.launcher.server import Server
from tests.serving.served import connections_of

PREDICTIONS = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
WELL_KNOWN = {7070, 7071}

pytestmark = pytest.mark.serving


def varint(number: int) -> bytes:
    low, high = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + varint(high) if high else bytes([low])


def field(number: int, value: bytes) -> bytes:
    """A field of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(value)) + value


@pytest.mark.parametrize("name", ["data", "body"])
def test_a_prediction_over_grpc_names_what_to_use(server: Server, jpeg: Path, name: str) -> None:
    """TorchServe reports success whatever the worker's status is."""
    message = field(1, b"shapes") + field(3, field(1, name.encode()) + field(2, jpeg.read_bytes()))
    with grpc.insecure_channel(f"{LOOPBACK}:{server.ports.grpc_inference}") as channel:
        method: Any = channel.unary_unary(PREDICTIONS)
        response = method(message, timeout=120)
    content = json.loads(response[response.index(b"{") :])
    assert "gRPC" in content["error"]["message"]
    assert "--grpc-port" in content["error"]["hint"]


def test_other_machines_cannot_reach_the_ports(server: Server) -> None:
    ports = {server.ports.grpc_inference, server.ports.grpc_management}
    assert not ports & WELL_KNOWN
    listening = [
        connection.laddr
        for process in psutil.Process(server.process.pid).children(recursive=True)
        for connection in connections_of(process)
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port in ports
    ]
    assert len(listening) == 2
    assert {address.ip.removeprefix("::ffff:") for address in listening} == {LOOPBACK}
