"""The part of d2serve in an archive runs on a stock container without further packages."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import d2serve
from d2serve.building.archive import LIBRARIES, NOT_SERVED, SERVING_PACKAGES

PACKAGE = Path(d2serve.__file__).resolve().parent
CONTAINER = {"torch", "torchvision", "numpy", "scipy", "PIL", "cv2", "yaml"}
ALLOWED = set(sys.stdlib_module_names) | CONTAINER | {"d2serve"}
ALLOWED_IN = {
    "servers/torchserve/handler.py": {"ts"},
    **{f"detector/detectron2/{name}.py": {"detectron2"} for name in ("inference", "model")},
}
# The archive carries these packages: for TorchServe's proxy, and for forms.
PACKED = {"servers/torchserve": set(LIBRARIES), "inputs/multipart.py": {"python_multipart"}}
# Imported when a model needs them, never together with the module.
OPTIONAL = {"detectron2"}


def served_modules() -> list[Path]:
    """The modules that an archive contains."""
    paths = (path for name in SERVING_PACKAGES for path in (PACKAGE / name).rglob("*.py"))
    served = [path for path in paths if not set(NOT_SERVED) & set(path.parts)]
    return sorted([*served, *PACKAGE.glob("*.py")])


MODULES = served_modules()


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_served_modules_import_only_what_the_container_has(module: Path) -> None:
    assert imported_packages(module.read_text(encoding="utf-8")) - allowed_in(module) == set()


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_optional_packages_are_imported_inside_functions_only(module: Path) -> None:
    assert packages_imported_at_load(module.read_text(encoding="utf-8")) & OPTIONAL == set()


def test_the_served_modules_are_found() -> None:
    names = {path.relative_to(PACKAGE).as_posix() for path in MODULES}
    assert {"__init__.py", "serving/pipeline.py", "servers/torchserve/handler.py"} <= names
    assert not any(name.startswith(("building/", "aws/", "cli/", "client/")) for name in names)


@pytest.mark.parametrize(
    ("code", "packages"),
    [
        ("import detectron2", {"detectron2"}),
        ("try:\n    import detectron2\nexcept ImportError:\n    pass", {"detectron2"}),
        ("class A:\n    import detectron2.layers", {"detectron2"}),
        ("def f():\n    import detectron2\nimport os", {"os"}),
        ("class A:\n    def f(self):\n        from detectron2 import layers", set()),
    ],
)
def test_packages_imported_at_load(code: str, packages: set[str]) -> None:
    assert packages_imported_at_load(code) == packages


@pytest.mark.parametrize(
    ("code", "packages"),
    [
        ("", set()),
        ("import os.path, numpy as np", {"os", "numpy"}),
        ("from torch.nn import functional", {"torch"}),
        ("def f():\n    import scripts.client", {"scripts"}),
        ("try:\n    import detectron2\nexcept ImportError:\n    detectron2 = None", {"detectron2"}),
        ("from . import errors", {"d2serve"}),
        ("import importlib\nimportlib.import_module('boto3')", {"importlib", "boto3"}),
        ("__import__('boto3.session')", {"boto3"}),
    ],
)
def test_imported_packages(code: str, packages: set[str]) -> None:
    assert imported_packages(code) == packages


def allowed_in(module: Path) -> set[str]:
    """Top-level names of the packages that a served module may import."""
    path = module.relative_to(PACKAGE)
    packed = {name for folder in PACKED if path.is_relative_to(folder) for name in PACKED[folder]}
    return ALLOWED | packed | ALLOWED_IN.get(path.as_posix(), set())


def imported_packages(code: str) -> set[str]:
    """Top-level names of all packages that the code imports, inside functions and by name too."""
    modules = (module for node in ast.walk(ast.parse(code)) for module in _modules_of(node))
    return {module.partition(".")[0] for module in modules}


def packages_imported_at_load(code: str) -> set[str]:
    """Top-level names of the packages that are imported together with the module."""
    nodes: list[ast.AST] = [ast.parse(code)]
    packages = set()
    while nodes:
        node = nodes.pop()
        packages |= {module.partition(".")[0] for module in _modules_of(node)}
        nodes += [n for n in ast.iter_child_nodes(node) if not isinstance(n, ast.FunctionDef)]
    return packages


def _modules_of(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module=module, level=level):
            yield "d2serve" if level else str(module)
        case ast.Call(
            func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
            args=[ast.Constant(value=str(module)), *_],
        ):
            yield module
