"""Requests that Schemathesis generates from docs/openapi.yaml, sent to a real server."""

from typing import Any

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from d2serve.servers.torchserve.launcher.server import Server
from tests.serving.openapi.document import NAME, read_document

EXAMPLES_PER_OPERATION = 30
ROUTES = ("/ping", "/invocations", "/predictions/{name}")
# Schemathesis cannot generate images; tests/fuzz does.
BODIES = ("application/json",)
# The coverage phase sends thousands of requests and takes minutes.
CONFIG = SchemathesisConfig.from_dict({"phases": {"coverage": {"enabled": False}}})
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def document_for(name: str) -> dict[str, Any]:
    """The part that Schemathesis generates quickly: JSON bodies on three routes of one model."""
    document = read_document()
    components = document["components"]
    components["parameters"]["Name"]["schema"] = {"const": name}
    # A request with a short deadline gets a 503.
    components["parameters"]["Timeout"]["schema"] = {"type": "number", "minimum": 60_000}
    # Recursive lists take minutes to generate.
    rows = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
    components["schemas"]["Lists"] = rows
    content = components["requestBodies"]["Images"]["content"]
    components["requestBodies"]["Images"]["content"] = {kind: content[kind] for kind in BODIES}
    document["paths"] = {route: document["paths"][route] for route in ROUTES}
    return document


schema = schemathesis.openapi.from_dict(document_for(NAME), config=CONFIG)


@schema.parametrize()
@settings(
    max_examples=EXAMPLES_PER_OPERATION,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_responses_to_generated_requests_conform(
    case: schemathesis.Case[Any], server: Server
) -> None:
    case.call_and_validate(base_url=server.url, checks=CHECKS)
