"""The files of a SageMaker package for AWS's Ray container."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from d2serve.building.packing import MANIFEST, SHARED_PACKAGES, copy_code, copy_library, sums_of
from d2serve.serving.archive_files import RAY_MODEL
from d2serve.serving.integrity import SUMS_FILE, format_sums
from d2serve.serving.model_config import MODEL_CONFIG_FILE

# The container unpacks a package to /opt/ml/model, runs the Serve config there, and has that folder
# and its folder `code` on the Python path.
SERVE_CONFIG = "config.yaml"
# The archive in the package.
MODEL_PREFIX = RAY_MODEL
CODE_PREFIX = "code/"
# Of the archive; the rest of it is code.
MODEL_FOLDER = "model"
APPLICATION = "d2serve.servers.sagemaker.application:build"
# Batch jobs need pyarrow, which the container lacks.
NOT_SERVED = "d2serve/servers/ray/batch"
PACKAGES = (
    *SHARED_PACKAGES,
    "servers/asgi",
    "servers/playground",
    "servers/ray",
    "servers/sagemaker",
)
# Pure-Python packages that d2serve imports and the container lacks; it has h11, with uvicorn.
LIBRARIES = ("python_multipart",)


def ray_files(archive: Mapping[str, bytes], name: str) -> dict[str, bytes]:
    """Return the files of a package, by path: Serve config, model, and d2serve's own code.

    Args:
        archive: the archive's files; its code is left out.
        name: the model's name.
    """
    model = {
        path: content
        for path, content in archive.items()
        if path.startswith(f"{MODEL_FOLDER}/") or path in (MANIFEST, MODEL_CONFIG_FILE)
    }
    model[SUMS_FILE] = format_sums(sums_of(model)).encode()
    return {
        SERVE_CONFIG: serve_config(name),
        **{f"{MODEL_PREFIX}{path}": content for path, content in model.items()},
        **{f"{CODE_PREFIX}{path}": content for path, content in _code().items()},
    }


def serve_config(name: str) -> bytes:
    """Return the Serve config of a model; its paths are relative to the unpacked package."""
    application = {
        "name": name,
        "route_prefix": "/",
        "import_path": APPLICATION,
        "args": {"archive": MODEL_PREFIX.rstrip("/"), "name": name},
    }
    return yaml.safe_dump({"applications": [application]}, sort_keys=False).encode()


def _code() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="d2serve-package-") as temporary:
        folder = Path(temporary)
        copy_code(PACKAGES, folder)
        for library in LIBRARIES:
            copy_library(library, folder)
        shutil.rmtree(folder / NOT_SERVED)
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
