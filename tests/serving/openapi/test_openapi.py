"""docs/openapi.yaml against the real server and against the code's own tables."""

import json
import re
from typing import Any

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from d2serve.inputs import instances as media_types
from d2serve.messages import (
    FORMATS,
    INPUT_COLORS,
    INPUT_LAYOUTS,
    INPUT_RANGES,
    MASKS,
    OPTION_NAMES,
    OUTPUT_NAMES,
    RESPONSE_TYPES,
)
from d2serve.servers.torchserve.launcher.server import Server
from tests.bad_requests import REFUSED
from tests.serving.openapi.document import (
    NAME,
    RequestExample,
    faults,
    read_document,
    request_examples,
)

DOCUMENT = read_document()
COMPONENTS = DOCUMENT["components"]
EXAMPLES = {example.title: example for example in request_examples(DOCUMENT)}
ROUTES = [path for path, verbs in DOCUMENT["paths"].items() if "post" in verbs]
FOUND = "/components/responses/Found/content"
ERROR = "/components/schemas/Error"


def test_the_document_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    validate(DOCUMENT, cls=OpenAPIV31SpecValidator)


def test_every_route_takes_the_same_bodies_and_gives_the_same_responses() -> None:
    operations = [DOCUMENT["paths"][route]["post"] for route in ROUTES]
    assert len(ROUTES) == 5
    for operation in operations:
        assert operation["requestBody"] == operations[0]["requestBody"]
        assert operation["responses"] == operations[0]["responses"]


def test_the_document_says_what_the_code_says() -> None:
    options = COMPONENTS["schemas"]["Options"]["properties"]
    assert set(options) == set(OPTION_NAMES)
    for name, values in {
        "response_type": RESPONSE_TYPES,
        "format": FORMATS,
        "masks": MASKS,
        "input_layout": INPUT_LAYOUTS,
        "input_color": INPUT_COLORS,
        "input_range": INPUT_RANGES,
    }.items():
        assert options[name]["enum"] == list(values)
    query = {name for name, each in COMPONENTS["parameters"].items() if each["in"] == "query"}
    assert query == set(OPTION_NAMES)
    assert list(COMPONENTS["responses"]["Found"]["content"]) == list(RESPONSE_TYPES.values())
    bodies = COMPONENTS["requestBodies"]["Pictures"]["content"]
    assert set(bodies) == set(media_types.NAMED)
    assert COMPONENTS["schemas"]["OutputName"]["enum"] == list(OUTPUT_NAMES)
    codes = set(COMPONENTS["schemas"]["Error"]["properties"]["error"]["properties"]["code"]["enum"])
    own = {"not_found", "method_not_allowed", "overloaded", "internal", "out_of_memory"}
    assert codes == {bad.code for bad in REFUSED.values()} | own


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("title", EXAMPLES)
def test_every_example_of_a_body_is_answered_as_the_document_says(
    server: Server, http: httpx.Client, title: str, route: str
) -> None:
    response = send(http, server.url + route.replace("{name}", NAME), EXAMPLES[title])
    assert response.status_code == 200, response.text
    assert_follows_the_document(response)


@pytest.mark.parametrize("title", [title for title in EXAMPLES if "/json: " in title])
def test_every_json_example_follows_its_own_schema(title: str) -> None:
    assert not faults(DOCUMENT, "/components/schemas/Document", json.loads(EXAMPLES[title].body))


@pytest.mark.parametrize("media_type", COMPONENTS["responses"]["Found"]["content"])
def test_every_media_type_of_the_responses_is_answered(
    http: httpx.Client, url: str, media_type: str
) -> None:
    response = send(http, url, EXAMPLES["image/jpeg: sample"], Accept=media_type)
    assert response.headers["content-type"] == media_type
    assert_follows_the_document(response)


FORMAT_SCHEMAS = {
    "default": "Prediction",
    "clarify": "ClarifyRows",
    "clarify-scores": "ClarifyScores",
    "coco": "CocoResults",
    "jumpstart": "JumpStart",
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("masks", MASKS)
def test_every_format_follows_its_schema(
    http: httpx.Client, url: str, name: str, masks: str
) -> None:
    attributes = {"X-Amzn-SageMaker-Custom-Attributes": f"format={name};masks={masks}"}
    answer = send(http, url, EXAMPLES["image/jpeg: sample"], **attributes).json()
    assert answer
    assert not faults(DOCUMENT, f"/components/schemas/{FORMAT_SCHEMAS[name]}", answer)


def test_every_example_of_an_answer_follows_its_schema() -> None:
    content = COMPONENTS["responses"]["Found"]["content"]["application/json"]
    for example in content["examples"].values():
        assert not faults(DOCUMENT, f"{FOUND}/application~1json/schema", example["value"])


@pytest.mark.parametrize("name", REFUSED)
def test_every_error_follows_its_schema(http: httpx.Client, url: str, name: str) -> None:
    bad = REFUSED[name]
    headers = {**bad.headers, "Content-Type": bad.content_type}
    response = http.post(url, content=bad.body, headers=headers)
    assert str(response.status_code) in DOCUMENT["paths"]["/invocations"]["post"]["responses"]
    assert not faults(DOCUMENT, ERROR, response.json())


def test_a_schema_can_refuse() -> None:
    assert faults(DOCUMENT, "/components/schemas/Prediction", {"labels": []})
    assert faults(DOCUMENT, ERROR, {"error": {"code": "teapot", "message": "a", "hint": "b"}})


def send(http: httpx.Client, url: str, example: RequestExample, **headers: str) -> httpx.Response:
    if example.content_type == "multipart/form-data":
        return http.post(url, files={"data": ("a.jpg", example.body, "image/jpeg")})
    declared = {"Content-Type": example.content_type, **headers}
    return http.post(url, content=example.body, headers=declared)


def assert_follows_the_document(response: httpx.Response) -> None:
    documented = COMPONENTS["headers"]
    assert re.search(
        documented["Server-Timing"]["schema"]["pattern"], response.headers["server-timing"]
    )
    if told := response.headers.get("X-Input-Range"):
        assert re.search(documented["X-Input-Range"]["schema"]["pattern"], told)
    media_type = response.headers["content-type"].replace("/", "~1")
    value: Any = response.json() if media_type.endswith("~1json") else response.text
    assert not faults(DOCUMENT, f"{FOUND}/{media_type}/schema", value)
