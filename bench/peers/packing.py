"""Packs a model as the users of each peer do."""

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from bench.peers.models import REPOSITORY, Model, write_torchvision_weights
from bench.peers.predictor import CHECKPOINT_FILE, CONFIG_FILE
from handler.serving_file import SERVING_FILE
from scripts.archive import ONE_WORKER, SERVING_DEFAULTS
from scripts.errors import CommandError
from scripts.yaml_files import write_yaml

PEERS = Path(__file__).parent
# What the peers' code imports of this repository, where detectron2 is missing; `predictor` in any
# case.
SHIPPED = ("handler", "bench/__init__.py", "bench/peers/__init__.py", "bench/peers/predictor.py")
# Of our archives' settings those that are TorchServe's; each server has one process, as a bare
# loop has.
SERVING = {
    **{name: value for name, value in SERVING_DEFAULTS.items() if name != "handler"},
    **ONE_WORKER,
}
# TorchServe's own default, for peers that loop over a batch. They gain nothing by a larger one,
# and TorchServe reads a worker's answer anew from its begin with each piece that comes: that of
# eight requests with masks as lists, 100 MB, took longer than `responseTimeout` on busy cores.
LOOPING_BATCH = 1


def naive_archive(model: Model, folder: Path) -> Path:
    """Peer (a) as `folder`/naive.mar."""
    content = _content(model, folder / "content")
    options = ["--handler", str(PEERS / "naive.py"), "--extra-files", str(content)]
    return _archive("naive", options, folder, LOOPING_BATCH)


def object_detector_archive(folder: Path) -> Path:
    """Peer (c) as `folder`/object_detector.mar."""
    weights = folder / "weights.pth"
    write_torchvision_weights(weights)
    options = ["--handler", "object_detector", "--serialized-file", str(weights)]
    options += ["--model-file", str(PEERS / "torchvision_model.py")]
    if not find_spec("captum"):
        stand_in = folder / "extra" / "captum"
        stand_in.mkdir(parents=True)
        shutil.copyfile(PEERS / "stand_in_captum.py", stand_in / "attr.py")
        options += ["--extra-files", str(stand_in.parent)]
    return _archive("object_detector", options, folder, SERVING["batchSize"])


def toolkit_package(model: Model, folder: Path) -> Path:
    """Peer (b) as `folder`/toolkit.tar.gz: the model, and under code/ the script."""
    content = _content(model, folder / "content")
    package = folder / "toolkit.tar.gz"
    with tarfile.open(package, "w:gz", compresslevel=1) as packed:
        for file in (CONFIG_FILE, CHECKPOINT_FILE):
            packed.add(content / file, file)
        for code in ("handler", "bench"):
            packed.add(content / code, f"code/{code}")
        packed.add(PEERS / "inference.py", "code/inference.py")
    return package


def _content(model: Model, folder: Path) -> Path:
    for name in SHIPPED:
        source, target = REPOSITORY / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    shutil.copyfile(model.config, folder / CONFIG_FILE)
    shutil.copyfile(model.checkpoint, folder / CHECKPOINT_FILE)
    return folder


def _archive(name: str, options: Sequence[str], folder: Path, batch: int) -> Path:
    serving = folder / SERVING_FILE
    write_yaml(serving, SERVING | {"batchSize": batch})
    command = [
        *(sys.executable, "-m", "model_archiver.model_packaging", "--model-name", name),
        *("--version", "1.0", "--config-file", str(serving), "--export-path", str(folder)),
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandError(f"torch-model-archiver failed for {name}:\n{done.stderr.strip()}")
    return folder / f"{name}.mar"
