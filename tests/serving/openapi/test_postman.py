"""The Postman collection: what the document makes of it, and every request of it sent."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from d2serve.servers.torchserve.launcher.server import Server
from scripts.postman import COLLECTION, DOCS, build_collection
from tests.serving.openapi.document import NAME, read_document


def requests_of(item: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All requests in an item, by the names on the way to them."""
    title = f"{path}/{item.get('name', '')}"
    if "request" in item:
        yield title, item
    for inner in item.get("item", []):
        yield from requests_of(inner, title)


WRITTEN: dict[str, Any] = json.loads(COLLECTION.read_text(encoding="utf-8"))
REQUESTS = dict(requests_of(WRITTEN))


def test_the_collection_is_what_the_document_makes_of_it() -> None:
    """`python -m scripts.postman` writes it anew."""
    assert build_collection(read_document()) == WRITTEN


def test_the_collection_asks_for_errors_too() -> None:
    codes = {item["response"][0]["code"] for item in REQUESTS.values()}
    assert codes == {200, 400, 406, 413, 415, 422}


@pytest.mark.parametrize("title", REQUESTS)
def test_every_request_gets_the_status_of_its_saved_response(
    server: Server, http: httpx.Client, title: str
) -> None:
    item = REQUESTS[title]
    request = item["request"]
    url = request["url"]["raw"].replace("{{url}}", server.url).replace("{{name}}", NAME)
    response = http.request(
        request["method"],
        url,
        params=pairs(request["url"]["query"]) or None,
        headers=pairs(request["header"]),
        **body_of(request["body"]),
    )
    assert response.status_code == item["response"][0]["code"], response.text


def pairs(listed: list[dict[str, str]]) -> dict[str, str]:
    return {pair["key"]: pair["value"] for pair in listed}


def body_of(body: dict[str, Any]) -> dict[str, Any]:
    match body:
        case {"mode": "raw", "raw": text}:
            return {"content": text.encode()}
        case {"mode": "file", "file": {"src": source}}:
            return {"content": (DOCS / source).read_bytes()}
        case {"mode": "formdata", "formdata": [{"key": key, "type": "file", "src": source}]}:
            return {"files": {key: ("picture.jpg", (DOCS / source).read_bytes(), "image/jpeg")}}
    raise AssertionError(body)
