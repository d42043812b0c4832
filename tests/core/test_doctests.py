"""The examples in docstrings run."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import d2serve

PACKAGE = Path(d2serve.__file__).parent
FILES = [
    path
    for path in PACKAGE.rglob("*.py")
    if any(
        ">>> " in line and "+SKIP" not in line
        for line in path.read_text(encoding="utf-8").splitlines()
    )
]
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in FILES
)


@pytest.fixture(scope="module")
def folder(repo_root: Path, shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `models/` and `model-store/shapes.mar`, like a checkout after `make demo`."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "models").symlink_to(repo_root / "models")
    (folder / "model-store").mkdir()
    (folder / "model-store" / "shapes.mar").symlink_to(shapes_mar)
    return folder


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_module(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    results = doctest.testmod(import_module(name))
    assert results.attempted > 0
    assert results.failed == 0
