"""`pip install .` in an environment without the repository: the Python API and the command."""

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

SCRIPT = """\
import sys
import d2serve

with d2serve.load(sys.argv[1]) as model:
    for path, detections in zip(sys.argv[2:], model.predict(sys.argv[2:]), strict=True):
        print(path, len(detections.scores), "detections")
        for name, score, box in zip(
            detections.class_names, detections.scores, detections.boxes_xyxy, strict=True
        ):
            print(f"  {name} {score:.2f} {box.round(1).tolist()}")
"""
# Python runs this module at start: it hides the packages that d2serve does not depend on.
HIDING = """\
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""


@pytest.fixture(scope="module")
def environment(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment with only the built wheel and its dependencies."""
    folder = tmp_path_factory.mktemp("install")
    source, site = folder / "source", folder / "site"
    listed = ["git", "-C", str(repo_root), "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.splitlines()
    for name in names:
        if (repo_root / name).is_file() and not name.startswith(("tests/", "bench/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(repo_root / name, source / name)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(site), str(source)], check=True)
    hiding = folder / "hiding"
    hiding.mkdir()
    content = HIDING.format(hidden=_packages_not_needed())
    (hiding / "sitecustomize.py").write_text(content, encoding="utf-8")
    found_in = (hiding, site, sysconfig.get_path("purelib"))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, found_in))}


def test_a_ten_line_script_prints_detections(
    environment: dict[str, str], shapes_mar: Path, shapes: Path, tmp_path: Path
) -> None:
    script = tmp_path / "detect.py"
    script.write_text(SCRIPT, encoding="utf-8")
    images = [str(path) for path in sorted((shapes / "samples").iterdir())]
    printed = _run(environment, tmp_path, str(script), str(shapes_mar), *images)
    for image in images:
        assert f"{image} 0 detections" not in printed
        assert f"{image} " in printed
    assert "star" in printed


def test_the_command_explains_itself(environment: dict[str, str], tmp_path: Path) -> None:
    site = environment["PYTHONPATH"].split(os.pathsep)[1]
    printed = _run(environment, tmp_path, str(Path(site, "bin", "d2serve")), "--help")
    for command in ("archive", "serve", "predict", "deploy"):
        assert command in printed


def test_importing_d2serve_does_not_import_torch(
    environment: dict[str, str], tmp_path: Path
) -> None:
    printed = _run(
        environment, tmp_path, "-c", "import sys, d2serve; print('torch' in sys.modules)"
    )
    assert printed == "False\n"


def _run(environment: dict[str, str], folder: Path, *arguments: str) -> str:
    # The interpreter of the virtual environment, without its packages.
    python = getattr(sys, "_base_executable", sys.executable)
    command = [python, "-s", *arguments]
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _packages_not_needed() -> set[str]:
    needed = _closure("d2serve")
    return {
        package
        for package, distributions in packages_distributions().items()
        if package != "d2serve" and not {_normal(name) for name in distributions} & needed
    }


def _closure(name: str) -> set[str]:
    """Normalized names of a distribution and everything it requires without extras."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = _normal(waiting.pop())
        if current in found:
            continue
        try:
            requires = distribution(current).requires or []
        except PackageNotFoundError:
            continue
        found.add(current)
        requirements = map(Requirement, requires)
        waiting += [
            requirement.name
            for requirement in requirements
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        ]
    return found


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
