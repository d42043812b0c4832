from pathlib import Path

import httpx
import pytest

from scripts.torchserve import Server
from tests.serving.traffic import assert_refused, broken_bodies


@pytest.mark.parametrize("route", ["/invocations", "/predictions/shapes"])
def test_each_broken_body_gets_its_own_error(
    server: Server, http: httpx.Client, png: Path, route: str
) -> None:
    for broken in broken_bodies(png):
        assert_refused(broken.body.post(http, server.url + route), broken)


def test_errors_tell_nothing_of_the_server(http: httpx.Client, url: str, png: Path) -> None:
    for broken in broken_bodies(png):
        text = broken.body.post(http, url).text
        assert "Traceback" not in text
        assert "/tmp" not in text
        assert "handler/" not in text


def test_errors_carry_server_timing(http: httpx.Client, url: str, png: Path) -> None:
    for broken in broken_bodies(png):
        assert "decode;dur=" in broken.body.post(http, url).headers["server-timing"]
