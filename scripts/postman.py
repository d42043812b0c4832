"""Generate a Postman collection from docs/openapi.yaml, a link to the document that the ASGI server
publishes: `make postman`.

The collection has one request per example of the document. Paths of files are relative to the
repository: set it as the working directory in Postman's settings, or run
`newman run --working-dir . out/d2serve.postman_collection.json`.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = REPOSITORY / "docs"
DOCUMENT = DOCS / "openapi.yaml"
OUTPUT = Path("out", "d2serve.postman_collection.json")
SCHEMA = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
FORM = "multipart/form-data"
VERBOSE = "application/json;verbose;n_predictions=2"

Item = dict[str, Any]


def build_collection(document: dict[str, Any]) -> dict[str, Any]:
    """Build a collection in Postman's format 2.1.

    Args:
        document: content of docs/openapi.yaml.
    """
    components = document["components"]
    bodies = components["requestBodies"]["Images"]["content"]
    [sample] = bodies["image/jpeg"]["examples"].values()
    return {
        "info": {"name": "d2serve", "schema": SCHEMA},
        "variable": [
            {"key": "url", "value": document["servers"][0]["url"]},
            {"key": "name", "value": "shapes"},
            {"key": "version", "value": "1.0"},
        ],
        "item": [
            *(_route(path, bodies) for path in _prediction_routes(document["paths"])),
            _folder("Options", _options(components["parameters"], sample)),
            _folder("Responses", _responses(components["responses"]["Success"]["content"], sample)),
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
        yield _item(accept, "/invocations", "image/jpeg", sample, headers={"Accept": accept})


def _prediction_routes(paths: dict[str, Any]) -> Iterator[str]:
    """The routes that take the contract's bodies; those of roboflow's SDK have tags."""
    for path, verbs in paths.items():
        if "post" in verbs and "tags" not in verbs["post"]:
            yield path


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
    """A request with the status of its response."""
    # Postman sets the Content-Type of a form itself, including the boundary.
    declared = {} if content_type == FORM else {"Content-Type": content_type}
    request = {
        "method": "POST",
        "header": _pairs({**declared, **(headers or {})}),
        "url": {
            "raw": "{{url}}" + path.replace("{", "{{").replace("}", "}}"),
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
    source = Path(os.path.relpath(DOCS / example["externalValue"], REPOSITORY)).as_posix()
    if content_type == FORM:
        return {"mode": "formdata", "formdata": [{"key": "data", "type": "file", "src": source}]}
    return {"mode": "file", "file": {"src": source}}


def main() -> None:
    """Write the collection to out/."""
    document = yaml.safe_load(DOCUMENT.read_text(encoding="utf-8"))
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(build_collection(document), indent=1) + "\n", encoding="utf-8")
    print(OUTPUT)


if __name__ == "__main__":
    main()
