"""Access to docs/openapi.yaml and validation of values against its schemas."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from scripts.postman import DOCS, DOCUMENT

NAME = "shapes"
ROOT = "urn:d2serve"


def read_document() -> dict[str, Any]:
    """The whole document."""
    document: dict[str, Any] = yaml.safe_load(DOCUMENT.read_text(encoding="utf-8"))
    return document


@dataclass(frozen=True)
class RequestExample:
    """One example of a request body."""

    name: str
    content_type: str
    body: bytes

    @property
    def title(self) -> str:
        return f"{self.content_type}: {self.name}"


def request_examples(document: dict[str, Any]) -> Iterator[RequestExample]:
    """All examples of request bodies."""
    bodies = document["components"]["requestBodies"]["Images"]["content"]
    for content_type, body in bodies.items():
        for name, example in body["examples"].items():
            yield RequestExample(name, content_type, bytes_of(example))


def bytes_of(example: dict[str, Any]) -> bytes:
    """The value of an example, or the content of its file."""
    if "externalValue" in example:
        return (DOCS / Path(example["externalValue"])).read_bytes()
    value = example["value"]
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


def violations(document: dict[str, Any], pointer: str, value: Any) -> list[str]:
    """Violations of the schema at a JSON pointer into the document."""
    registry: Registry[Any] = Registry().with_resource(ROOT, DRAFT202012.create_resource(document))
    validator = Draft202012Validator({"$ref": f"{ROOT}#{pointer}"}, registry=registry)
    return [error.message for error in validator.iter_errors(value)]
