"""Writes the Postman collection out of docs/openapi.yaml: one request for each of its examples."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from d2serve.cli.run import run

DOCS = Path(__file__).resolve().parent.parent / "docs"
DOCUMENT = DOCS / "openapi.yaml"
COLLECTION = DOCS / "d2serve.postman_collection.json"
SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
FORM = "multipart/form-data"
VERBOSE = "application/json;verbose;n_predictions=2"

Item = dict[str, Any]


def build_collection(document: dict[str, Any]) -> dict[str, Any]:
    """A collection of Postman's version 2.1.

    Args:
        document: docs/openapi.yaml.
    """
    components = document["components"]
    bodies = components["requestBodies"]["Pictures"]["content"]
    [sample] = bodies["image/jpeg"]["examples"].values()
    return {
        "info": {"name": "d2serve", "schema": SCHEMA},
        "variable": [
            {"key": "url", "value": document["servers"][0]["url"]},
            {"key": "name", "value": "shapes"},
        ],
        "item": [
            *(_route(path, bodies) for path, verbs in document["paths"].items() if "post" in verbs),
            _folder("Options", _options(components["parameters"], sample)),
            _folder("Responses", _responses(components["responses"]["Found"]["content"], sample)),
            _folder("Errors", _errors(components["responses"], document["paths"])),
        ],
    }


def _folder(name: str, items: Iterator[Item]) -> Item:
    return {"name": name, "item": list(items)}


def _route(path: str, bodies: dict[str, Any]) -> Item:
    return _folder(path, _requests(path, bodies))


def _requests(path: str, bodies: dict[str, Any]) -> Iterator[Item]:
    for content_type, body in bodies.items():
        for name, example in body["examples"].items():
            yield _item(f"{content_type}: {name}", path, content_type, example)


def _options(parameters: dict[str, Any], sample: Item) -> Iterator[Item]:
    for parameter in parameters.values():
        if parameter["in"] == "query":
            query = {parameter["name"]: str(parameter["example"])}
            yield _item(parameter["name"], "/invocations", "image/jpeg", sample, query=query)
        elif parameter["in"] == "header":
            for name, example in parameter["examples"].items():
                headers = {parameter["name"]: str(example["value"])}
                title = f"{parameter['name']}: {name}"
                yield _item(title, "/invocations", "image/jpeg", sample, headers=headers)


def _responses(media_types: dict[str, Any], sample: Item) -> Iterator[Item]:
    for accept in (*media_types, VERBOSE):
        headers = {"Accept": accept}
        yield _item(accept, "/invocations", "image/jpeg", sample, headers=headers)


def _errors(responses: dict[str, Any], paths: dict[str, Any]) -> Iterator[Item]:
    for status, reference in paths["/invocations"]["post"]["responses"].items():
        name = reference["$ref"].rpartition("/")[2]
        if example := responses[name].get("x-example-request"):
            headers = {"Accept": example["accept"]} if "accept" in example else {}
            body = {key: example[key] for key in ("externalValue",) if key in example}
            body = body or {"value": example["body"]}
            content_type = example["contentType"]
            yield _item(name, "/invocations", content_type, body, headers=headers, status=status)


def _item(
    title: str,
    path: str,
    content_type: str,
    example: dict[str, Any],
    *,
    query: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
    status: str = "200",
) -> Item:
    """A request with its saved response."""
    # Postman writes the Content-Type of a form itself, with its boundary.
    declared = {} if content_type == FORM else {"Content-Type": content_type}
    request = {
        "method": "POST",
        "header": _pairs({**declared, **(headers or {})}),
        "url": {
            "raw": "{{url}}" + path.replace("{name}", "{{name}}"),
            "query": _pairs(query or {}),
        },
        "body": _body(content_type, example),
    }
    return {"name": title, "request": request, "response": [{"name": status, "code": int(status)}]}


def _pairs(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _body(content_type: str, example: dict[str, Any]) -> dict[str, Any]:
    if "value" in example:
        value = example["value"]
        return {"mode": "raw", "raw": value if isinstance(value, str) else json.dumps(value)}
    source = example["externalValue"]
    if content_type == FORM:
        return {"mode": "formdata", "formdata": [{"key": "data", "type": "file", "src": source}]}
    return {"mode": "file", "file": {"src": source}}


def main() -> int:
    """Write the collection."""
    document = yaml.safe_load(DOCUMENT.read_text(encoding="utf-8"))
    COLLECTION.write_text(json.dumps(build_collection(document), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    run(main)
