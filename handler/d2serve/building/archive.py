"""Build a model archive (.mar) from a Detectron2 config and a checkpoint."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from d2serve.building.augmentation import OPTION, describe, is_enabled
from d2serve.building.calibration_images import calibrate_folder, summary
from d2serve.building.checkpoint import Checkpoint, open_checkpoint
from d2serve.building.class_names import choose_class_names
from d2serve.building.label_font import write_labels
from d2serve.building.lazy_config import as_yaml
from d2serve.building.members import check_checkpoint_size
from d2serve.building.packing import (
    HANDLER_FILE,
    PACKAGE,
    SHARED_PACKAGES,
    SUFFIX,
    check_name,
    copy_code,
    copy_library,
    pack,
    write_yaml,
)
from d2serve.building.runtimes import (
    AUTO,
    NATIVE,
    RUNTIME_CHOICES,
    WrittenModel,
    choose_runtime,
    write_model_folder,
)
from d2serve.errors import CommandError, ConfigError
from d2serve.metadata import CLASSES_FILE, class_names_text
from d2serve.serving.loading import MODEL_FOLDER, load_detector
from d2serve.serving.model_config import MODEL_CONFIG_FILE, check_model_config
from d2serve.settings import SETTING_NAMES, Settings

logger = logging.getLogger(__name__)
ENTRY_POINT = PACKAGE / "servers" / "torchserve" / "archive_handler.py"
SERVING_PACKAGES = (*SHARED_PACKAGES, "servers/torchserve")
# Pure-Python packages that workers import and SageMaker's container lacks.
LIBRARIES = ("h11", "python_multipart")
NOT_SERVED = ("__pycache__", "launcher", ENTRY_POINT.name)
DEFAULT_MODEL_CONFIG: dict[str, Any] = {
    # On a CPU two workers with half of the threads each have a higher throughput than one
    # (docs/performance.md), and one serves while the other restarts.
    "minWorkers": 2,
    "maxWorkers": 2,
    "batchSize": 8,
    "maxBatchDelay": 10,
    "jobQueueSize": 32,
    "responseTimeout": 120,
    "startupTimeout": 300,
    # All settings, so that operators find what they can change.
    "handler": {name: getattr(Settings(), name) for name in SETTING_NAMES},
}
# For callers that rely on a single process with all cores.
ONE_WORKER = {"minWorkers": 1, "maxWorkers": 1}


def build_archive(
    config: str | Path,
    weights: str | Path,
    output: str | Path,
    *,
    class_names: str | Path | Sequence[str] | None = None,
    weights_key: str | None = None,
    runtime: str = AUTO,
    ignore_keys: Sequence[str] = (),
    model_config: Mapping[str, Any] | None = None,
    calibration: str | Path | None = None,
    augment: bool = False,
    report: Callable[[str], None] = logger.info,
) -> Path:
    """Build an archive from a Detectron2 config and a checkpoint.

    The archive is loaded and runs an image before it is written. Equal inputs give equal bytes.

    Args:
        config: a YAML config of Detectron2, or a Python one, whose code is run.
        weights: a checkpoint; see `open_checkpoint`.
        output: the archive's path, NAME.mar; its folder is created if necessary.
        class_names: a JSON file of class names, or the names in the order of the class indices.
            By default those of the config's datasets; see `choose_class_names`.
        weights_key: the key of the weights in a checkpoint with several; see `open_checkpoint`.
        runtime: `native`, our own network; `detectron2`, the upstream package; or `auto`, native if
            it supports the config.
        ignore_keys: names, or patterns such as `INPUT.SLICE_*`, of keys of the config that
            Detectron2 does not define and that the network does not depend on.
        model_config: keys of model-config.yaml that differ from DEFAULT_MODEL_CONFIG.
        calibration: a folder of images to calibrate 8-bit integers on, which the setting
            `precision: int8` needs; usual ones, 20 to 64 of them.
        augment: whether the network runs each image in the sizes of the config's TEST.AUG and
            merges the results; TEST.AUG.ENABLED does not count.
        report: receives a line on each choice: runtime, class names and weights.

    Raises:
        ConfigError, CheckpointError, ClassNamesError: an input cannot be read, is not supported or
            does not match the other ones.
        ArchiveError: the checkpoint is a zip bomb.
        RuntimeUnavailableError: the model needs the detectron2 package, which cannot be imported.
        CommandError: the output's name is not accepted, or the folder has no images.
        SettingsError: int8 without calibration images.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as store:
        ...     archive = build_archive(
        ...         "models/shapes/config.yaml",
        ...         "models/shapes/model_final.pth",
        ...         f"{store}/shapes.mar",
        ...         class_names="models/shapes/classes.json",
        ...     )
        ...     print(archive.name)
        shapes.mar
    """
    target = Path(output)
    name = check_name(target.name.removesuffix(SUFFIX))
    if target.suffix != SUFFIX:
        raise CommandError(f"output is {target.name!r}, expected a name that ends in {SUFFIX}")
    chosen_config = dict(model_config or {})
    check_model_config(chosen_config)
    if runtime not in RUNTIME_CHOICES:
        raise ConfigError(f"runtime is {runtime!r}, expected {', '.join(RUNTIME_CHOICES)}")
    # Parallel builds of the same archive do not share any file until the final rename.
    with (
        as_yaml(Path(config)) as yaml_config,
        tempfile.TemporaryDirectory(prefix="d2serve-archive-") as temporary,
    ):
        choice = choose_runtime(runtime, yaml_config, ignore_keys)
        report(f"runtime: {choice.runtime} ({choice.reason})")
        content = Path(temporary) / "content"
        _write_model(
            content / MODEL_FOLDER,
            yaml_config,
            Path(weights),
            _open_class_names(class_names),
            weights_key,
            choice.runtime,
            ignore_keys,
            augment,
            report,
        )
        if calibration is not None:
            report(_calibrate(content / MODEL_FOLDER, Path(calibration), choice.runtime))
        _write_code(content)
        merged = {**DEFAULT_MODEL_CONFIG, **chosen_config}
        handler = {**DEFAULT_MODEL_CONFIG["handler"], **(chosen_config.get("handler") or {})}
        merged["handler"] = {**handler, "runtime": choice.runtime}
        write_yaml(content / MODEL_CONFIG_FILE, merged)
        _try(content, choice.runtime, str(merged["handler"]["precision"]))
        packed = Path(temporary) / target.name
        pack(content, name, packed)
        return _move(packed, target)


def _open_class_names(given: str | Path | Sequence[str] | None) -> Path | Sequence[str] | None:
    return Path(given) if isinstance(given, str) else given


def _write_model(
    folder: Path,
    config: Path,
    weights: Path,
    class_names: Path | Sequence[str] | None,
    weights_key: str | None,
    runtime: str,
    ignore_keys: Sequence[str],
    augment: bool,
    report: Callable[[str], None],
) -> None:
    folder.mkdir(parents=True)
    check_checkpoint_size(weights)
    checkpoint = open_checkpoint(weights, weights_key)
    model = write_model_folder(
        folder, config, checkpoint.weights, runtime, ignore_keys, augment=augment
    )
    chosen = choose_class_names(
        class_names, model.explicit, model.num_classes, model.num_stuff_classes
    )
    (folder / CLASSES_FILE).write_text(class_names_text(chosen.names), encoding="utf-8")
    write_labels(folder, chosen.names)
    sources = (*chosen.sources, *_weights_source(checkpoint))
    for line in (*_ignored_keys(model), *sources, *_augmentation(model)):
        report(line)


def _calibrate(folder: Path, images: Path, runtime: str) -> str:
    if runtime != NATIVE:
        raise ConfigError(
            f"--calibration is for the runtime {NATIVE}, and the model needs {runtime}, which "
            "computes in fp32; remove the option"
        )
    return summary(calibrate_folder(folder, images))


def _ignored_keys(model: WrittenModel) -> list[str]:
    return [f"ignored keys: {', '.join(model.ignored)}"] if model.ignored else []


def _augmentation(model: WrittenModel) -> list[str]:
    if model.augmentation is not None:
        return [describe(model.augmentation)]
    if is_enabled(model.explicit):
        return [f"augmentation: off, as in Detectron2's predictor; {OPTION} applies TEST.AUG"]
    return []


def _weights_source(checkpoint: Checkpoint) -> list[str]:
    if checkpoint.plain_key is None:
        return []
    return [
        f"weights: {checkpoint.key}, a running average; --weights-key {checkpoint.plain_key} "
        "selects the plain ones"
    ]


def _write_code(folder: Path) -> None:
    """Copy the entry point, the part of d2serve that workers import, and its libraries."""
    copy_code(SERVING_PACKAGES, folder, NOT_SERVED)
    shutil.copyfile(ENTRY_POINT, folder / HANDLER_FILE)
    for library in LIBRARIES:
        copy_library(library, folder)


def _try(folder: Path, runtime: str, precision: str) -> None:
    """Load the model as a worker does and run an image through the network.

    Raises:
        ConfigError: the network cannot run.
        SettingsError: int8 is not calibrated.
    """
    # Other precisions may be for GPUs.
    chosen = Settings(runtime=runtime, precision="int8" if precision == "int8" else "fp32")
    detector = load_detector(folder, torch.device("cpu"), chosen)
    try:
        detector.warm_up()
    except Exception as error:  # a config of the package may call any code
        raise ConfigError(f"the network was built but cannot run: {error}") from error


def _move(packed: Path, target: Path) -> Path:
    """Replace the target in one step, so that readers never see an incomplete archive."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=target.parent, prefix=".", suffix=SUFFIX, delete=False
    ) as file:
        incomplete = Path(file.name)
    shutil.copyfile(packed, incomplete)
    incomplete.chmod(0o644)
    return incomplete.replace(target)
