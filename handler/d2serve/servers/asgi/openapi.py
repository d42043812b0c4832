"""The OpenAPI document as the server publishes it."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from d2serve.messages import VERSION

DOCUMENT = Path(__file__).with_name("openapi.yaml")
# Examples in files of the repository, which the server does not publish.
FILE_EXAMPLE = "externalValue"


@cache
def openapi_json() -> bytes:
    """The document as JSON; takes a second when called first."""
    document = yaml.load(DOCUMENT.read_text(encoding="utf-8"), _loader())  # noqa: S506
    document["info"]["version"] = VERSION
    document["servers"] = [{"url": "/"}]
    return json.dumps(_without_files(document)).encode()


def _loader() -> Any:
    """The fast loader if PyYAML has been built with it."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _without_files(node: Any) -> Any:
    """Remove examples that refer to files, and groups of examples that become empty."""
    if isinstance(node, list):
        return [_without_files(each) for each in node]
    if not isinstance(node, dict):
        return node
    kept = {name: _without_files(each) for name, each in node.items() if not _is_file(each)}
    return {name: each for name, each in kept.items() if name != "examples" or each}


def _is_file(node: Any) -> bool:
    return isinstance(node, dict) and FILE_EXAMPLE in node
