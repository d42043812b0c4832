"""Manifests, and the schemas that they have to match."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from kubernetes_validate import utils
from referencing import Registry, Resource

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"
SCHEMAS = Path(__file__).parent / "schemas"
KUBERNETES = "1.31"
CUSTOM = ("ray.io/", "serving.kserve.io/")


def documents_in(file: Path) -> list[dict[str, Any]]:
    """The manifests of a file."""
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))


def deployed_manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    """The manifests in deploy/, with names for tests."""
    for file in sorted(DEPLOY.rglob("*.yaml")):
        for document in documents_in(file):
            if "kind" in document:
                yield f"{file.parent.name}-{document['kind']}", document


def validate(manifest: dict[str, Any]) -> None:
    """Compare a manifest with the strict schema of its kind.

    Raises:
        jsonschema.ValidationError: a field is unknown, missing or of another type.
    """
    if manifest["apiVersion"].startswith(CUSTOM):
        _validator(manifest["kind"].lower()).validate(manifest)
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@cache
def _validator(kind: str) -> Any:
    definitions = utils.schema_contents(
        f"kubernetes-json-schema/v{KUBERNETES}.0-local-strict/_definitions.json", KUBERNETES
    )
    schema = yaml.safe_load((SCHEMAS / f"{kind}.yaml").read_text(encoding="utf-8"))
    registry: Any = Resource.from_contents(definitions) @ Registry()
    return jsonschema.Draft202012Validator(schema, registry=registry)


def containers_of(manifest: Any) -> list[dict[str, Any]]:
    """All containers in a manifest or in a part of one, at any depth."""
    if isinstance(manifest, dict):
        own = manifest.get("containers", [])
        return [*own, *(each for value in manifest.values() for each in containers_of(value))]
    if isinstance(manifest, list):
        return [each for value in manifest for each in containers_of(value)]
    return []
