"""Who may import whom: an archive has to run on a stock container, with nothing installed."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HANDLER = Path(__file__).resolve().parent.parent / "handler"
SOURCES = sorted(HANDLER.rglob("*.py"))
CONTAINER = {"torch", "torchvision", "numpy", "scipy", "PIL", "cv2", "yaml"}
ALLOWED_EVERYWHERE = set(sys.stdlib_module_names) | CONTAINER | {"handler"}
ALLOWED_IN = {
    "handler.py": {"ts"},
    **{
        f"detector/upstream/{name}.py": {"detectron2"}
        for name in ("answers", "config", "model", "package", "padding")
    },
    "rcnn/checkpoint/files.py": {"safetensors"},
}
# Installed where a model needs them, so never imported together with the module.
OPTIONAL = {"detectron2", "safetensors"}


def test_handler_has_sources() -> None:
    assert SOURCES


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(HANDLER).as_posix())
def test_handler_imports_only_what_the_container_has(source: Path) -> None:
    allowed = ALLOWED_EVERYWHERE | ALLOWED_IN.get(source.relative_to(HANDLER).as_posix(), set())
    assert imported_packages(source.read_text(encoding="utf-8")) - allowed == set()


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.relative_to(HANDLER).as_posix())
def test_what_is_optional_is_imported_inside_functions_alone(source: Path) -> None:
    assert packages_of_the_module(source.read_text(encoding="utf-8")) & OPTIONAL == set()


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
def test_packages_of_the_module(code: str, packages: set[str]) -> None:
    assert packages_of_the_module(code) == packages


@pytest.mark.parametrize(
    ("code", "packages"),
    [
        ("", set()),
        ("import os.path, numpy as np", {"os", "numpy"}),
        ("from torch.nn import functional", {"torch"}),
        ("def f():\n    import scripts.client", {"scripts"}),
        ("try:\n    import detectron2\nexcept ImportError:\n    detectron2 = None", {"detectron2"}),
        ("from . import errors", {"handler"}),
        ("import importlib\nimportlib.import_module('boto3')", {"importlib", "boto3"}),
        ("__import__('boto3.session')", {"boto3"}),
    ],
)
def test_imported_packages(code: str, packages: set[str]) -> None:
    assert imported_packages(code) == packages


def imported_packages(code: str) -> set[str]:
    """Top-level names of all that the code imports, inside functions and by name too."""
    modules = (module for node in ast.walk(ast.parse(code)) for module in _modules_of(node))
    return {module.partition(".")[0] for module in modules}


def packages_of_the_module(code: str) -> set[str]:
    """Top-level names of what is imported when the module is, not when its functions run."""
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
            yield "handler" if level else str(module)
        case ast.Call(
            func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
            args=[ast.Constant(value=str(module)), *_],
        ):
            yield module
