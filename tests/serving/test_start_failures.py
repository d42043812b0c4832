import json
import zipfile
from pathlib import Path

import psutil
import pytest

from d2serve.errors import ServerError
from d2serve.servers.torchserve.launcher.server import running_server

HANDLERS = {
    "raises": (
        "def handle(data, context):\n    raise ValueError('weights.pt is missing')\n",
        r"worker that exited(.|\n)*ValueError: weights\.pt is missing",
    ),
    "exits": (
        "import os\n\ndef handle(data, context):\n    os._exit(3)\n",
        r"worker that exited",
    ),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An unpacked archive without a handler."""
    folder = tmp_path / "broken model, unpacked"
    (folder / "MAR-INF").mkdir(parents=True)
    model = {
        "modelName": "broken",
        "handler": "handler.py",
        "modelVersion": "1.0",
        "configFile": "model-config.yaml",
    }
    manifest = {"model": model, "runtime": "python", "archiverVersion": "0.12.0"}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (folder / "model-config.yaml").write_text("minWorkers: 1\nmaxWorkers: 1\n")
    return folder


@pytest.mark.parametrize(("code", "message"), HANDLERS.values(), ids=HANDLERS.keys())
def test_a_worker_that_cannot_load_is_reported_at_once(
    model: Path, tmp_path: Path, code: str, message: str
) -> None:
    # TorchServe calls a function handler once, without data, to set it up.
    (model / "handler.py").write_text(code)
    with (
        pytest.raises(ServerError, match=message),
        running_server(model, log_dir=tmp_path / "logs"),
    ):
        pass
    assert not _processes_with_argument(str(tmp_path))


def test_a_broken_model_config_is_reported(tmp_path: Path, model: Path) -> None:
    (model / "handler.py").write_text("def handle(data, context):\n    return []\n")
    (model / "model-config.yaml").write_text("batchSize: [")
    with (
        pytest.raises(ServerError, match=r"could not read the archive's model-config\.yaml"),
        running_server(model, log_dir=tmp_path / "logs"),
    ):
        pass


def test_a_damaged_archive_is_reported(tmp_path: Path) -> None:
    archive = tmp_path / "damaged.mar"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr("weights.pt", bytes(1000))
    content_bytes = archive.read_bytes()
    archive.write_bytes(content_bytes[:41] + b"\xff" * 5 + content_bytes[46:])
    with (
        pytest.raises(ServerError, match="could not read the archive"),
        running_server(archive, log_dir=tmp_path / "logs"),
    ):
        pass


def _processes_with_argument(text: str) -> list[psutil.Process]:
    own_children = psutil.Process().children(recursive=True)
    return [process for process in own_children if _has_argument(text, process)]


def _has_argument(text: str, process: psutil.Process) -> bool:
    try:
        return text in " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # exited meanwhile, or a zombie
        return False
