"""d2serve and its baselines as running servers, each with one worker, d2serve's batch delay, and
its batch size unless it loops over the batch. Waiting threads sleep soon in all of them, as `make
serve` sets it: spinning threads would make the baselines depend on the machine's other work."""

import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

import d2serve
from bench import served
from bench.baselines.inference import CHECKPOINT_FILE, CONFIG_FILE
from bench.baselines.torchvision_model import MaskRCNNResNet50FPN
from bench.workloads import R50_FPN, checkpoint_of
from d2serve.aws.containers import SINGLE_WORKER, container_environment
from d2serve.aws.local_container import running_container
from d2serve.building.archive import DEFAULT_MODEL_CONFIG, ONE_WORKER, build_archive
from d2serve.building.packing import write_yaml
from d2serve.serving.model_config import MODEL_CONFIG_FILE
from tests.goldens.cases import SAMPLES, SHAPES
from tests.goldens.seeded_weights import seeded_weights

# torchvision's names of parameters that `seeded_weights` knows by Detectron2's.
SEEDED_AS = {
    ".bn1.": ".bn1.norm.",
    ".bn2.": ".bn2.norm.",
    ".bn3.": ".bn3.norm.",
    ".downsample.1.": ".shortcut.norm.",
    ".cls_logits.": ".objectness_logits.",
    "rpn.head.bbox_pred.": "rpn.head.anchor_deltas.",
    ".mask_fcn_logits.": ".predictor.",
}
# With this, a hundred scores exceed the 0.5 that TorchServe's handler requires.
CLASS_GAIN = 1.5


class Model(NamedTuple):
    """A model, and the JPEG files to send; `classes` is None where the classes have no names."""

    name: str
    config: Path
    checkpoint: Path
    classes: Path | None
    images: tuple[Path, ...]


def shapes(_folder: Path) -> Model:
    """The bundled model, and its samples of three sizes."""
    images = tuple(each for each in SAMPLES if each.suffix == ".jpg")
    files = (SHAPES / "config.yaml", SHAPES / "model_final.pth", SHAPES / "classes.json")
    return Model("shapes", *files, images)


def r50(folder: Path) -> Model:
    """Mask R-CNN R50-FPN at 800/1333, with seeded weights that are written into a folder. Its image
    has 640x480 pixels and 100 detections."""
    images = (SHAPES / "samples" / "shapes_01.jpg",)
    return Model("r50", R50_FPN.config, checkpoint_of(R50_FPN, folder), None, images)


MODELS: Mapping[str, Callable[[Path], Model]] = {"shapes": shapes, "r50": r50}


def torchvision_weights() -> dict[str, Tensor]:
    """Seeded weights of `MaskRCNNResNet50FPN`, with a hundred detections in R50's image."""
    state, known = MaskRCNNResNet50FPN().state_dict(), {}
    for name in state:
        known[name] = name
        for theirs, seeded in SEEDED_AS.items():
            known[name] = known[name].replace(theirs, seeded)
    drawn = seeded_weights({known[name]: tuple(each.shape) for name, each in state.items()})
    weights = {name: torch.from_numpy(drawn[known[name]]) for name in state}
    for name in ("weight", "bias"):
        weights[f"roi_heads.box_predictor.cls_score.{name}"] *= CLASS_GAIN
    return weights


FOLDER = Path(__file__).parent
# TorchServe's default, for baselines that loop over a batch: a larger one does not help them, and
# TorchServe parses a response of 100 MB, eight with masks as lists, again with each piece of it.
LOOPING_BATCH = 1
# TorchServe's vision handlers import captum for explanations, which a prediction does not run.
CAPTUM_STUB = "class IntegratedGradients:\n    def __init__(self, model):\n        pass\n"


class Baseline(NamedTuple):
    """Another server: what its response lacks, the models it can serve, and a context manager that
    serves one from a folder of its own and yields the URL."""

    lacks: str
    models: tuple[str, ...]
    serve: Callable[[Model, Path], AbstractContextManager[str]]


def our_archive(
    model: Model, precision: str, folder: Path, workers: Mapping[str, int] = ONE_WORKER
) -> Path:
    """Build an archive as `make archive` does, in a precision."""
    settings = {"handler": DEFAULT_MODEL_CONFIG["handler"] | {"precision": precision}, **workers}
    files = (model.config, model.checkpoint, folder / "ours.mar")
    images = SAMPLES[0].parent if precision == "int8" else None
    return build_archive(
        *files, class_names=model.classes, model_config=settings, calibration=images
    )


@contextmanager
def torchserve(archive: Path, folder: Path) -> Iterator[str]:
    """Serve an archive by TorchServe, all with the same config.properties."""
    with served.torchserve(archive, folder / "logs", with_proxy=False) as server:
        yield server.url


def naive(model: Model, folder: Path) -> AbstractContextManager[str]:
    """A plain TorchServe handler."""
    content = _content(model, folder / "naive")
    return torchserve(_with_manifest(content, LOOPING_BATCH, handler="inference.py"), folder)


def object_detector(_model: Model, folder: Path) -> AbstractContextManager[str]:
    """TorchServe's own handler with torchvision's network."""
    # Named otherwise than the handler, for which Python would take it.
    content = folder / "torchvision"
    (content / "captum").mkdir(parents=True)
    torch.save(torchvision_weights(), content / "weights.pth")
    shutil.copy(FOLDER / "torchvision_model.py", content)
    if not find_spec("captum"):
        (content / "captum" / "attr.py").write_text(CAPTUM_STUB, encoding="utf-8")
    files = {"serializedFile": "weights.pth", "modelFile": "torchvision_model.py"}
    batch = DEFAULT_MODEL_CONFIG["batchSize"]
    _with_manifest(content, batch, handler="object_detector", **files)
    return torchserve(content, folder)


@contextmanager
def toolkit(model: Model, folder: Path) -> Iterator[str]:
    """A script in AWS's container, with d2serve's limits and otherwise its own defaults."""
    content, package = _content(model, folder / "content"), folder / "toolkit.tar.gz"
    with tarfile.open(package, "w:gz", compresslevel=1) as packed:
        for file in (CONFIG_FILE, CHECKPOINT_FILE):
            packed.add(content / file, file)
        packed.add(content / "d2serve", "code/d2serve")
        packed.add(content / "inference.py", "code/inference.py")
    # A container does not inherit the environment, unlike TorchServe.
    threads = {name: os.environ[name] for name in os.environ if "OMP_" in name}
    own = {"SAGEMAKER_TS_BATCH_SIZE": str(LOOPING_BATCH), **SINGLE_WORKER, **threads}
    variables = container_environment("transform", own)
    # Without a reverse proxy, which only workers of d2serve open.
    variables = {name: value for name, value in variables.items() if not name.endswith("ADDRESS")}
    with running_container(package, variables, log_dir=folder / "logs") as container:
        container.wait_until_healthy(served.READY_WITHIN_S)
        yield f"{container.url}/invocations"


BASELINES = {
    "naive": Baseline("nothing", ("shapes", "r50"), naive),
    "toolkit": Baseline("nothing", ("shapes", "r50"), toolkit),
    "object_detector": Baseline("the masks", ("r50",), object_detector),
}


def _content(model: Model, folder: Path) -> Path:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(d2serve.__file__).parent, folder / "d2serve", ignore=ignored)
    shutil.copyfile(model.config, folder / CONFIG_FILE)
    shutil.copyfile(model.checkpoint, folder / CHECKPOINT_FILE)
    shutil.copy(FOLDER / "inference.py", folder)
    return folder


def _with_manifest(folder: Path, batch: int, **model: str) -> Path:
    """Make a folder a model that TorchServe serves, as an unpacked archive."""
    settings = {key: each for key, each in DEFAULT_MODEL_CONFIG.items() if key != "handler"}
    write_yaml(folder / MODEL_CONFIG_FILE, {**settings, **ONE_WORKER, "batchSize": batch})
    facts = {"modelName": folder.name, "modelVersion": "1.0", "configFile": MODEL_CONFIG_FILE}
    manifest = json.dumps({"runtime": "python", "model": {**facts, **model}})
    (folder / "MAR-INF").mkdir()
    (folder / "MAR-INF" / "MANIFEST.json").write_text(manifest, encoding="utf-8")
    return folder
