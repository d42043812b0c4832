"""Build a model archive from a Detectron2 config and checkpoint."""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import d2serve
from d2serve.building.checkpoint import Checkpoint, open_checkpoint
from d2serve.building.class_names import choose_class_names
from d2serve.building.lazy_config import as_yaml
from d2serve.building.members import check_checkpoint_size
from d2serve.building.packing import STORE, check_name, pack, write_yaml
from d2serve.building.runtimes import AUTO, WANTED, choose_runtime, write_network
from d2serve.building.yaml_config import ConfigError
from d2serve.cli.run import run
from d2serve.detector.detectron2.model import PackageError
from d2serve.errors import CheckpointError, CommandError
from d2serve.metadata import CLASSES_FILE, ClassNamesError, class_names_text
from d2serve.serving.loading import load_detector
from d2serve.serving.model_config import SERVING_FILE
from d2serve.settings import SETTING_NAMES, Settings

PACKAGE = Path(d2serve.__file__).resolve().parent
ENTRY_POINT = PACKAGE / "servers" / "torchserve" / "archive_handler.py"
SERVING_DEFAULTS: dict[str, Any] = {
    # On a CPU two with half of the threads each answer more than one (docs/performance.md), and one
    # answers while the other is being started again.
    "minWorkers": 2,
    "maxWorkers": 2,
    "batchSize": 8,
    "maxBatchDelay": 10,
    "jobQueueSize": 32,
    "responseTimeout": 120,
    "startupTimeout": 300,
    # All of them, so that an operator finds what can be changed.
    "handler": {name: getattr(Settings(), name) for name in SETTING_NAMES},
}
# For who counts on one process with all cores.
ONE_WORKER = {"minWorkers": 1, "maxWorkers": 1}


def build_archive(
    config: Path,
    checkpoint: Path,
    name: str,
    store: Path,
    *,
    classes: Path | None = None,
    weights_key: str | None = None,
    serving: dict[str, Any] | None = None,
    runtime: str = AUTO,
) -> Path:
    """Checks a model, proves it by one forward and packs it as `store`/`name`.mar.

    Prints what the model runs on, which class names and, where a checkpoint has several, which
    weights it took. Equal models give equal bytes.

    Args:
        config: a YAML config of Detectron2, or a Python one, which is run.
        checkpoint: a file that `open_checkpoint` reads.
        name: letters, digits, - and _.
        store: the folder that receives the archive; made where absent.
        classes: a JSON file of class names; where None see `choose_class_names`.
        weights_key: see `open_checkpoint`.
        serving: keys of model-config.yaml that differ from SERVING_DEFAULTS.
        runtime: what the model runs on, one of WANTED.

    Raises:
        ConfigError, CheckpointError, ClassNamesError: the model's files are not as they must be.
        PackageError: the model needs the detectron2 package, which cannot be imported.
        CommandError: the name, or a failure of the archiver.
    """
    check_name(name)
    # Only this build's own folder is written to, so builds of one name can run side by side.
    with (
        as_yaml(config) as readable,
        tempfile.TemporaryDirectory(prefix="d2serve-archive-") as temporary,
    ):
        choice = choose_runtime(runtime, readable)
        print(f"runtime: {choice.runtime} ({choice.reason})", flush=True)
        content = Path(temporary) / "content"
        content.mkdir()
        settings = SERVING_DEFAULTS | (serving or {})
        settings["handler"] = settings["handler"] | {"runtime": choice.runtime}
        write_model(content, readable, checkpoint, classes, weights_key, settings)
        prove(content, choice.runtime)
        packed = Path(temporary) / f"{name}.mar"
        pack(content, name, packed)
        store.mkdir(parents=True, exist_ok=True)
        return _move_into(store, packed)


def write_model(
    folder: Path,
    config: Path,
    checkpoint: Path,
    classes: Path | None,
    weights_key: str | None,
    serving: dict[str, Any],
) -> None:
    """Writes all that an archive holds, apart from its manifest, into an empty folder."""
    check_checkpoint_size(checkpoint)
    read = open_checkpoint(checkpoint, weights_key)
    model = write_network(folder, config, read.weights, serving["handler"]["runtime"])
    chosen = choose_class_names(classes, model.explicit, model.num_classes, model.num_stuff_classes)
    for line in (*chosen.sources, *_told(read)):
        print(line)
    write_yaml(folder / SERVING_FILE, serving)
    (folder / CLASSES_FILE).write_text(class_names_text(chosen.names), encoding="utf-8")
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ENTRY_POINT, folder / "handler.py")


def prove(folder: Path, runtime: str) -> None:
    """Loads the folder as a worker would and runs one picture through the network.

    Raises:
        CommandError: the network cannot run.
    """
    detector = load_detector(folder, torch.device("cpu"), Settings(runtime=runtime))
    try:
        detector.warm_up()
    except Exception as error:  # a config of the package may name any code
        raise CommandError(f"the network was built but cannot run: {error}") from error


def _told(read: Checkpoint) -> list[str]:
    if read.plain_key is None:
        return []
    return [
        f"weights: {read.key}, a running average; WEIGHTS_KEY={read.plain_key} takes the plain ones"
    ]


def _move_into(store: Path, packed: Path) -> Path:
    """In one step, so that nobody ever reads half an archive."""
    with tempfile.NamedTemporaryFile(dir=store, prefix=".", suffix=".mar", delete=False) as file:
        arriving = Path(file.name)
    shutil.copyfile(packed, arriving)
    arriving.chmod(0o644)
    return arriving.replace(store / packed.name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build an archive, or say what in the model's files is not as it must be."""
    given = _parser().parse_args(arguments)
    try:
        archive = build_archive(
            given.config,
            given.weights,
            given.name,
            given.model_store,
            classes=given.classes,
            weights_key=given.weights_key,
            runtime=given.runtime,
        )
    except (ConfigError, CheckpointError, ClassNamesError, PackageError) as error:
        raise CommandError(str(error)) from error
    megabytes = archive.stat().st_size / 1e6
    print(f"{archive} ({megabytes:.1f} MB); serve it with: make serve MODEL={archive}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="archive", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="Detectron2's .yaml or .py")
    parser.add_argument("--weights", type=Path, required=True, help="checkpoint: .pth, .pkl, ...")
    parser.add_argument("--name", required=True, help="the model's name, such as my-model")
    parser.add_argument("--classes", type=Path, help="JSON file of class names")
    parser.add_argument("--weights-key", help="which of the checkpoint's weights, such as model")
    parser.add_argument("--runtime", choices=WANTED, default=AUTO, help="default: %(default)s")
    parser.add_argument("--model-store", type=Path, default=STORE, help="default: %(default)s")
    return parser


if __name__ == "__main__":
    run(main)
