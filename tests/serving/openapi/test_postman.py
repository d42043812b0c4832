"""The generated Postman collection: every request is sent to a real server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest

from d2serve.servers.torchserve.launcher.server import Server
from scripts.postman import OUTPUT, REPOSITORY, build_collection
from tests.serving.openapi.document import NAME, read_document, request_examples


def requests_of(item: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All requests in an item, keyed by the path of names to them."""
    title = f"{path}/{item.get('name', '')}"
    if "request" in item:
        yield title, item
    for inner in item.get("item", []):
        yield from requests_of(inner, title)


DOCUMENT = read_document()
COLLECTION = build_collection(DOCUMENT)
REQUESTS = dict(requests_of(COLLECTION))
POSTS = {path: verbs["post"] for path, verbs in DOCUMENT["paths"].items() if "post" in verbs}
ROUTES = [path for path, operation in POSTS.items() if "tags" not in operation]
EXAMPLES = [example.title for example in request_examples(DOCUMENT)]
# The requests with an example of the document: by route, which is all that they differ in.
OF_EXAMPLES = {(route, title): f"//{route}/{title}" for route in ROUTES for title in EXAMPLES}
# Each example on one route, in turn, and all other requests.
SENT = [
    *(OF_EXAMPLES[route, title] for title, route in zip(EXAMPLES, cycle(ROUTES), strict=False)),
    *(title for title in REQUESTS if title not in OF_EXAMPLES.values()),
]


def test_the_command_writes_the_collection(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.postman"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(OUTPUT)
    assert json.loads((tmp_path / OUTPUT).read_text(encoding="utf-8")) == COLLECTION


def test_every_example_of_the_document_has_a_request_on_every_route() -> None:
    assert len(OF_EXAMPLES) > 50
    assert set(OF_EXAMPLES.values()) <= REQUESTS.keys()
    for route, title in OF_EXAMPLES:
        request, first = (
            REQUESTS[OF_EXAMPLES[each, title]]["request"] for each in (route, ROUTES[0])
        )
        assert {**request, "url": ""} == {**first, "url": ""}


def test_the_collection_includes_errors() -> None:
    codes = {item["response"][0]["code"] for item in REQUESTS.values()}
    assert codes == {200, 400, 406, 413, 415, 422}


@pytest.mark.parametrize("title", SENT)
def test_every_request_gets_the_status_of_its_saved_response(
    server: Server, http: httpx.Client, title: str
) -> None:
    item = REQUESTS[title]
    request = item["request"]
    url = request["url"]["raw"]
    for name, value in {"url": server.url, "name": NAME, "version": "1.0"}.items():
        url = url.replace(f"{{{{{name}}}}}", value)
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
            return {"content": (REPOSITORY / source).read_bytes()}
        case {"mode": "formdata", "formdata": [{"key": key, "type": "file", "src": source}]}:
            return {"files": {key: ("image.jpg", (REPOSITORY / source).read_bytes(), "image/jpeg")}}
    raise AssertionError(body)
