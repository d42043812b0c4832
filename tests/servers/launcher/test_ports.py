import socket
from dataclasses import astuple

import pytest

from d2serve.errors import CommandError
from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports


def test_free_ports_differ() -> None:
    assert len(set(astuple(Ports.free()))) == 5


def test_free_ports_of_the_http_apis_are_consecutive() -> None:
    inference, management, metrics, *_ = astuple(Ports.free())
    assert (management, metrics) == (inference + 1, inference + 2)


def test_starting_at_uses_three_consecutive_ports() -> None:
    start = Ports.free().inference
    ports = Ports.starting_at(start)
    assert astuple(ports)[:3] == (start, start + 1, start + 2)
    assert len(set(astuple(ports))) == 5


@pytest.mark.parametrize("address", ["::1", "::"])
def test_ports_can_be_free_on_ipv6_addresses(address: str) -> None:
    start = Ports.free().inference
    assert Ports.starting_at(start, address).inference == start


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_the_error_names_the_port_in_use(offset: int) -> None:
    first = Ports.free().inference
    with socket.socket() as listener:
        listener.bind((LOOPBACK, first + offset))
        listener.listen()
        with pytest.raises(CommandError, match=rf"port {first + offset} is in use.*--port"):
            Ports.starting_at(first)


@pytest.mark.parametrize("port", [-1, 0, 65534, 99999])
def test_the_error_names_the_port_out_of_range(port: int) -> None:
    with pytest.raises(CommandError, match=f"port {port} is out of range"):
        Ports.starting_at(port)


def test_properties_listen_only_on_loopback() -> None:
    assert Ports(1, 2, 3, 4, 5).as_properties() == {
        "inference_address": "http://127.0.0.1:1",
        "management_address": "http://127.0.0.1:2",
        "metrics_address": "http://127.0.0.1:3",
        "grpc_inference_port": "4",
        "grpc_management_port": "5",
    }


def test_a_port_in_use_on_ipv6_is_an_error() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(CommandError, match=f"port {port} is in use"):
            Ports.starting_at(port, "::1")


def test_a_port_in_use_on_all_addresses_is_an_error() -> None:
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(CommandError, match=f"port {port} is in use"):
            Ports.starting_at(port, "0.0.0.0")


def test_a_port_in_use_on_another_address_is_free() -> None:
    port = Ports.free().inference
    with socket.socket() as listener:
        listener.bind(("127.0.0.2", port))
        listener.listen()
        with pytest.raises(CommandError, match=f"port {port} is in use"):
            Ports.starting_at(port, "127.0.0.2")
        assert Ports.starting_at(port).inference == port
