"""docs/openapi.yaml compared with a real server and with the tables in the code."""

import json
import re
from itertools import cycle
from typing import Any

import httpx
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from d2serve.messages import (
    FORMATS,
    INPUT_COLORS,
    INPUT_LAYOUTS,
    INPUT_RANGES,
    MASKS,
    OPTION_NAMES,
    OUTPUT_NAMES,
    REQUEST_TYPES,
    RESPONSE_TYPES,
    ResponseEnvelope,
    Style,
)
from d2serve.outputs.formats import FORMATS as OUTPUT_FORMATS
from d2serve.outputs.open_inference import open_inference_response
from d2serve.servers.torchserve.launcher.server import Server
from tests.bad_requests import REJECTED
from tests.outputs.results import TWO_OF_ALL, result_of
from tests.serving.openapi.document import (
    NAME,
    RequestExample,
    read_document,
    request_examples,
    violations,
)

DOCUMENT = read_document()
COMPONENTS = DOCUMENT["components"]
EXAMPLES = {example.title: example for example in request_examples(DOCUMENT)}
# Roboflow's routes have bodies of their own.
ROUTES = [
    path
    for path, verbs in DOCUMENT["paths"].items()
    if "post" in verbs and "tags" not in verbs["post"]
]
SUCCESS = "/components/responses/Success/content"
ERROR = "/components/schemas/Error"


def test_the_document_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    validate(DOCUMENT, cls=OpenAPIV31SpecValidator)


def test_all_routes_share_request_bodies_and_responses() -> None:
    operations = {route: DOCUMENT["paths"][route]["post"] for route in ROUTES}
    first, first_v2 = operations["/invocations"], operations["/v2/models/{name}/infer"]
    assert len(ROUTES) == 7
    for route, operation in operations.items():
        same = first_v2 if route.startswith("/v2") else first
        assert operation["requestBody"] == first["requestBody"]
        assert operation["responses"] == same["responses"]
    assert first_v2["responses"].keys() == first["responses"].keys()


def test_the_document_lists_the_values_in_the_code() -> None:
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
    assert list(COMPONENTS["responses"]["Success"]["content"]) == list(RESPONSE_TYPES.values())
    bodies = COMPONENTS["requestBodies"]["Images"]["content"]
    assert set(bodies) == set(REQUEST_TYPES)
    assert COMPONENTS["schemas"]["OutputName"]["enum"] == list(OUTPUT_NAMES)
    codes = set(COMPONENTS["schemas"]["Error"]["properties"]["error"]["properties"]["code"]["enum"])
    own = {
        *("unauthorized", "not_found", "method_not_allowed", "request_timeout"),
        *("headers_too_large", "overloaded", "internal", "out_of_memory"),
    }
    assert codes == {bad.code for bad in REJECTED.values()} | own


# Each example on one route, in turn: all routes share bodies and responses, as tested above.
@pytest.mark.parametrize(("title", "route"), [*zip(EXAMPLES, cycle(ROUTES), strict=False)])
def test_the_response_to_every_example_conforms(
    server: Server, http: httpx.Client, title: str, route: str
) -> None:
    response = send(http, server.url + route.format(name=NAME, version="1.0"), EXAMPLES[title])
    assert response.status_code == 200, response.text
    assert_conforms(response)


@pytest.mark.parametrize("title", [title for title in EXAMPLES if "/json: " in title])
def test_every_json_example_conforms_to_its_schema(title: str) -> None:
    assert not violations(
        DOCUMENT, "/components/schemas/Document", json.loads(EXAMPLES[title].body)
    )


@pytest.mark.parametrize("media_type", COMPONENTS["responses"]["Success"]["content"])
def test_every_documented_response_type_is_returned(
    http: httpx.Client, url: str, media_type: str
) -> None:
    response = send(http, url, EXAMPLES["image/jpeg: sample"], Accept=media_type)
    assert response.headers["content-type"] == media_type
    assert_conforms(response)


FORMAT_SCHEMAS = {
    "default": "Prediction",
    "clarify": "ClarifyRows",
    "clarify-scores": "ClarifyScores",
    "coco": "CocoResults",
    "jumpstart": "JumpStart",
    "roboflow": "Roboflow",
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("masks", MASKS)
def test_every_format_conforms_to_its_schema(
    http: httpx.Client, url: str, name: str, masks: str
) -> None:
    attributes = {"X-Amzn-SageMaker-Custom-Attributes": f"format={name};masks={masks}"}
    body = send(http, url, EXAMPLES["image/jpeg: sample"], **attributes).json()
    assert body
    assert not violations(DOCUMENT, f"/components/schemas/{FORMAT_SCHEMAS[name]}", body)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("masks", ["rle", "polygon"])
def test_a_result_with_all_outputs_conforms_to_its_schema(name: str, masks: str) -> None:
    entry = OUTPUT_FORMATS[name].entry(result_of(TWO_OF_ALL, mask_encoding=masks))
    assert not violations(DOCUMENT, f"/components/schemas/{FORMAT_SCHEMAS[name]}", entry)


def test_a_response_with_all_tensors_conforms_to_its_schema() -> None:
    envelope = ResponseEnvelope(Style.OPEN_INFERENCE, outputs=OUTPUT_NAMES)
    rendered = open_inference_response([result_of(TWO_OF_ALL)], envelope, NAME)
    body = json.loads(rendered.body)
    assert [tensor["name"] for tensor in body["outputs"]] == list(OUTPUT_NAMES)
    assert not violations(DOCUMENT, "/components/schemas/OpenInferenceResponse", body)


def test_every_example_response_conforms_to_its_schema() -> None:
    content = COMPONENTS["responses"]["Success"]["content"]["application/json"]
    for example in content["examples"].values():
        assert not violations(DOCUMENT, f"{SUCCESS}/application~1json/schema", example["value"])


@pytest.mark.parametrize("name", REJECTED)
def test_every_error_conforms_to_its_schema(http: httpx.Client, url: str, name: str) -> None:
    bad = REJECTED[name]
    headers = {**bad.headers, "Content-Type": bad.content_type}
    response = http.post(url, content=bad.body, headers=headers)
    assert str(response.status_code) in DOCUMENT["paths"]["/invocations"]["post"]["responses"]
    assert not violations(DOCUMENT, ERROR, response.json())


def test_the_validator_detects_violations() -> None:
    assert violations(DOCUMENT, "/components/schemas/Prediction", {"labels": []})
    assert violations(DOCUMENT, ERROR, {"error": {"code": "teapot", "message": "a", "hint": "b"}})


def send(http: httpx.Client, url: str, example: RequestExample, **headers: str) -> httpx.Response:
    if example.content_type == "multipart/form-data":
        return http.post(url, files={"data": ("a.jpg", example.body, "image/jpeg")})
    declared = {"Content-Type": example.content_type, **headers}
    return http.post(url, content=example.body, headers=declared)


def assert_conforms(response: httpx.Response) -> None:
    documented = COMPONENTS["headers"]
    assert re.search(
        documented["Server-Timing"]["schema"]["pattern"], response.headers["server-timing"]
    )
    if detected := response.headers.get("X-Input-Range"):
        assert re.search(documented["X-Input-Range"]["schema"]["pattern"], detected)
    media_type = response.headers["content-type"].replace("/", "~1")
    value: Any = response.json() if media_type.endswith("~1json") else response.text
    assert not violations(DOCUMENT, f"{SUCCESS}/{media_type}/schema", value)
