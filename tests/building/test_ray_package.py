"""Packages for AWS's Ray container."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from d2serve.building.package import Container, build_package, read_package
from d2serve.building.ray_package import LIBRARIES, PACKAGES
from d2serve.cli.main import invoke
from d2serve.errors import ArchiveError, CommandError
from d2serve.serving.archive_files import unpack_archive
from d2serve.serving.integrity import verify_folder
from d2serve.serving.model_config import read_settings
from tests.building.test_package import MANIFEST, VALID_MANIFEST, write_package
from tests.environment import clean_environment
from tests.test_imports import CONTAINER, imported_packages

# Further packages of the Ray image that d2serve may import.
IMAGE = {"ray", "starlette", "uvicorn", "h11", "prometheus_client", "boto3", "botocore"}
# Of the gRPC server, which Ray Serve does not use, and inside functions.
ELSEWHERE = {"grpc", "google", "detectron2"}
# Run where the container's folders are the only ones beside the image's packages.
IMPORT = """
import sys
assert not any("handler" in path for path in sys.path), sys.path
import d2serve.servers.sagemaker.application, d2serve.servers.asgi.app, d2serve.serving.loading
import d2serve.inputs.multipart, python_multipart
print(d2serve.__file__, python_multipart.__file__)
"""


@pytest.fixture(scope="module")
def package(shapes_mar: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = shutil.copy(shapes_mar, tmp_path_factory.mktemp("ray-store"))
    return build_package(Path(archive), container=Container.RAY).path


@pytest.fixture(scope="module")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as SageMaker unpacks it."""
    folder = tmp_path_factory.mktemp("model")
    with tarfile.open(package) as packed:
        packed.extractall(folder, filter="data")
    return folder


def test_content(unpacked: Path) -> None:
    assert {path.name for path in unpacked.iterdir()} == {"config.yaml", "model", "code"}
    names = {path.name for path in (unpacked / "code").iterdir()}
    assert names == {"d2serve", *LIBRARIES}, "the container would install requirements.txt"
    names = {path.name for path in (unpacked / "model").iterdir()}
    assert names == {"MAR-INF", "SHA256SUMS", "model", "model-config.yaml"}
    assert not [*unpacked.rglob("__pycache__")]
    verify_folder(unpacked / "model")


def test_serve_config(unpacked: Path) -> None:
    [application] = yaml.safe_load((unpacked / "config.yaml").read_bytes())["applications"]
    assert application == {
        "name": "shapes",
        "route_prefix": "/",
        "import_path": "d2serve.servers.sagemaker.application:build",
        "args": {"archive": "model", "name": "shapes"},
    }


def test_the_same_archive_gives_the_same_bytes(package: Path, tmp_path: Path) -> None:
    archive = shutil.copy(package.parent / "shapes.mar", tmp_path)
    again = build_package(Path(archive), container=Container.RAY)
    assert again.path.read_bytes() == package.read_bytes()
    assert again.container is Container.RAY


def test_the_code_is_importable_without_an_installed_d2serve(unpacked: Path) -> None:
    # `-S` leaves .pth files out, among them those of editable installations.
    environment = {
        **clean_environment(),
        "PYTHONPATH": f"{unpacked}:{unpacked / 'code'}:{Path(yaml.__file__).parents[1]}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    printed = subprocess.run(
        [sys.executable, "-S", "-c", IMPORT],
        env=environment,
        cwd=unpacked,
        capture_output=True,
        text=True,
    )
    assert printed.returncode == 0, printed.stderr
    assert all(path.startswith(str(unpacked)) for path in printed.stdout.split())


def test_the_code_imports_only_what_the_image_has(unpacked: Path) -> None:
    allowed = {*sys.stdlib_module_names, *CONTAINER, *IMAGE, *LIBRARIES, *ELSEWHERE, "d2serve"}
    modules = [*(unpacked / "code" / "d2serve").rglob("*.py")]
    assert {f"d2serve/{name}" for name in PACKAGES} <= {
        path.parent.relative_to(unpacked / "code").as_posix() for path in modules
    }
    for module in modules:
        imported = imported_packages(module.read_text(encoding="utf-8"))
        if module.name != "api.py":
            assert imported <= allowed, module


def test_settings_are_those_of_the_archive(unpacked: Path, package: Path, tmp_path: Path) -> None:
    unpack_archive(package.parent / "shapes.mar", tmp_path)
    assert read_settings(unpacked / "model" / "model-config.yaml", {}) == read_settings(
        tmp_path / "model-config.yaml", {}
    )


def test_other_servers_can_use_the_package(package: Path, tmp_path: Path) -> None:
    unpack_archive(package, tmp_path)
    verify_folder(tmp_path)
    assert (tmp_path / "model" / "model.json").is_file()
    assert not (tmp_path / "code").exists()


def test_metadata(package: Path) -> None:
    found = read_package(package)
    assert (found.name, found.container) == ("shapes", Container.RAY)


def test_a_package_without_its_model(tmp_path: Path) -> None:
    content = {"config.yaml": "applications: []", MANIFEST: VALID_MANIFEST}
    package = write_package(tmp_path / "a.tar.gz", **content)
    with pytest.raises(ArchiveError, match=r"has no model/MAR-INF/MANIFEST\.json; build it with"):
        read_package(package)


def test_several_models(shapes_mar: Path) -> None:
    with pytest.raises(CommandError, match="'ray', which has no multi-model endpoints; use"):
        build_package(shapes_mar, container=Container.RAY, multi_model=True)


@pytest.mark.parametrize(
    ("options", "container", "file"),
    [
        ((), Container.RAY, "shapes.tar.gz"),
        (("--container", "pytorch"), Container.PYTORCH, "shapes.tar.gz"),
        (("--multi-model",), Container.PYTORCH, "shapes.mme.tar.gz"),
    ],
)
def test_container_of_the_command(
    package: Path, tmp_path: Path, options: tuple[str, ...], container: Container, file: str
) -> None:
    shutil.copy(package.parent / "shapes.mar", tmp_path)
    store = ("--model-store", str(tmp_path))
    assert invoke(["package", "--name", "shapes", *store, *options]) == 0
    assert read_package(tmp_path / file).container is container
