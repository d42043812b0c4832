"""TorchServe's own errors, translated by the reverse proxy."""

import httpx
import pytest

from tests.serving.faults.faulty import FaultyTorchServe, error_code

pytestmark = pytest.mark.parametrize("server_name", ["torchserve"], indirect=True)

FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "code"),
    [
        ("POST", "/predictions/no-such-model", {}, 404, "not_found"),
        ("GET", "/no/such/route", {}, 404, "not_found"),
        (
            "POST",
            "/invocations",
            {"content": b"a=%zz", "headers": FORM},
            415,
            "unsupported_media_type",
        ),
        ("POST", "/invocations?a=%zz", {}, 400, "bad_request"),
        ("POST", "/invocations", {"content": bytes(105_000_000)}, 413, "too_large"),
        ("POST", "/invocations", {"content": b""}, 400, "bad_request"),
    ],
)
def test_torchserves_errors_are_translated_to_the_contracts(
    faulty: FaultyTorchServe, method: str, path: str, sent: dict[str, bytes], status: int, code: str
) -> None:
    with httpx.Client(timeout=60, trust_env=False) as http:
        response = http.request(method, f"{faulty.server.url}{path}", **sent)  # type: ignore[arg-type]
    assert response.status_code == status
    assert error_code(response) == code


def test_other_responses_are_forwarded_unchanged(faulty: FaultyTorchServe) -> None:
    url = faulty.server.url
    with httpx.Client(timeout=60, trust_env=False) as http:
        ping = http.get(f"{url}/ping")
        assert (ping.status_code, ping.json()) == (200, {"status": "Healthy"})
        assert http.head(f"{url}/ping").status_code == 200
        assert http.get(f"{url}/ping").json() == {"status": "Healthy"}
        assert http.request("OPTIONS", url).json()["openapi"]
