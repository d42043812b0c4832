"""Build archives: their content, and the inputs that are rejected before one is written."""

import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from d2serve.building import archive as archive_module
from d2serve.building.archive import DEFAULT_MODEL_CONFIG, build_archive
from d2serve.building.config import load_config
from d2serve.building.packing import manifest_bytes, manifest_of
from d2serve.building.runtimes import RuntimeChoice, choose_runtime
from d2serve.cli.main import invoke
from d2serve.cli.run import run
from d2serve.detector.native import NativeDetector
from d2serve.errors import (
    CheckpointError,
    ClassNamesError,
    CommandError,
    ConfigError,
    RuntimeUnavailableError,
    SettingsError,
)
from d2serve.model.serialization import decode_config, read_model_file
from d2serve.outputs.labels import read_labels
from d2serve.serving.integrity import parse_sums, verify_folder
from d2serve.settings import Settings
from tests.building.checkpoint.saving import Exploit
from tests.goldens.cases import CONFIGS, GoldenModel

CPU = torch.device("cpu")
CONFIG = CONFIGS / "mask_rcnn_r50.yaml"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as Detectron2's trainer writes it, random weights."""
    path = tmp_path_factory.mktemp("checkpoint") / "model_final.pth"
    model = GoldenModel("mask_rcnn_r50", CONFIG, None, ()).build()
    state = {"model": model.state_dict(), "optimizer": {"big": torch.zeros(100_000)}}
    torch.save(state | {"iteration": 9}, path)
    return path


@pytest.fixture(scope="module")
def archive(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_archive(CONFIG, checkpoint, tmp_path_factory.mktemp("store") / "tiny.mar")


def read_manifest(archive: Path) -> dict[str, dict[str, str]]:
    with zipfile.ZipFile(archive) as packed:
        manifest: dict[str, dict[str, str]] = json.loads(packed.read("MAR-INF/MANIFEST.json"))
    return manifest


@pytest.fixture(scope="module")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the archive's files, for tests that only read them."""
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    return folder


def test_the_archive_contains_the_model_and_the_serving_code(
    archive: Path, repo_root: Path
) -> None:
    with zipfile.ZipFile(archive) as packed:
        names = set(packed.namelist())
    package = repo_root / "handler" / "d2serve"
    serving = ("detector", "inputs", "masks", "model", "outputs", "serving", "servers/torchserve")
    sources = {
        f"d2serve/{path.relative_to(package).as_posix()}"
        for path in (
            *package.glob("*.py"),
            *package.glob("servers/*.py"),
            *(path for name in serving for path in (package / name).rglob("*.py")),
        )
        if "launcher" not in path.parts and path.name != "archive_handler.py"
    }
    assert names == sources | _files_of("h11") | _files_of("python_multipart") | {
        "handler.py",
        "d2serve/servers/torchserve/metrics.yaml",
        "model/model.json",
        "model/weights.pt",
        "model/classes.json",
        "model/detectron2.yaml",
        "model-config.yaml",
        "MAR-INF/MANIFEST.json",
        "SHA256SUMS",
    }


def _files_of(library: str) -> set[str]:
    folder = Path(find_spec(library).origin or "").parent  # type: ignore[union-attr]
    modules = {f"{library}/{path.name}" for path in folder.glob("*.py")}
    return {*modules, f"{library}/py.typed", f"{library}/LICENSE.txt"}


@pytest.mark.parametrize(
    ("library", "version_file"), [("h11", "_version.py"), ("python_multipart", "__init__.py")]
)
def test_the_archive_carries_pinned_libraries(
    unpacked: Path, repo_root: Path, library: str, version_file: str
) -> None:
    pins = (repo_root / "constraints.txt").read_text().splitlines()
    start = f"{library.replace('_', '-')}=="
    [pinned] = [line.removeprefix(start) for line in pins if line.startswith(start)]
    assert f'__version__ = "{pinned}"' in (unpacked / library / version_file).read_text()
    sums = (unpacked / "SHA256SUMS").read_text()
    assert all(f"  {library}/{file.name}\n" in sums for file in (unpacked / library).iterdir())


def test_no_reader_of_configs_or_pickles_is_shipped(unpacked: Path) -> None:
    assert not (unpacked / "d2serve" / "building").exists()
    public_api = unpacked / "d2serve" / "__init__.py"  # imports `building` on first use only
    for source in {*unpacked.rglob("*.py")} - {public_api}:
        text = source.read_text(encoding="utf-8")
        assert "d2serve.building" not in text, source
        assert "import pickle" not in text, source


# Run in a process that finds only the archive's own copy of d2serve.
IMPORT_ALL = """
import importlib, sys
from pathlib import Path
folder = Path(sys.argv[1])
sys.path[:] = [str(folder), *(path for path in sys.path if path != sys.argv[2])]
for source in sorted(folder.rglob("d2serve/**/*.py")):
    name = ".".join(source.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
    assert Path(importlib.import_module(name).__file__) == source, name
assert not [name for name in sys.modules if name.startswith("d2serve.building")]
import handler
print("imported", handler.Handler.__name__)
"""


def test_the_shipped_code_imports_without_the_rest_of_the_package(
    unpacked: Path, repo_root: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-B", "-c", IMPORT_ALL, str(unpacked), str(repo_root / "handler")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "imported Handler\n"


def test_sha256sum_itself_checks_an_unpacked_archive(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path)
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    (tmp_path / "handler.py").write_text("changed")
    message = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert message.returncode == 1
    assert message.stdout == "handler.py: FAILED\n"


def test_the_sums_are_those_of_all_files_but_the_settings(archive: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        sums = parse_sums(packed.read("SHA256SUMS"))
        names = {*packed.namelist()}
    assert sums.keys() == names - {"SHA256SUMS", "model-config.yaml"}


def test_the_same_model_gives_the_same_bytes(
    archive: Path, checkpoint: Path, tmp_path: Path
) -> None:
    other = build_archive(CONFIG, checkpoint, tmp_path / "store" / "tiny.mar")
    assert other.read_bytes() == archive.read_bytes()


def test_the_runtime_is_chosen_and_reported_once(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs, lines = [], list[str]()

    def choose(requested: str, config: Path, ignore_keys: Sequence[str]) -> RuntimeChoice:
        configs.append(config)
        return choose_runtime(requested, config, ignore_keys)

    monkeypatch.setattr(archive_module, "choose_runtime", choose)
    build_archive(CONFIG, checkpoint, tmp_path / "tiny.mar", report=lines.append)
    assert configs == [CONFIG]
    assert [line for line in lines if line.startswith("runtime: ")] == [
        "runtime: native (the config is supported)"
    ]


def test_the_manifest_names_handler_settings_and_the_version_that_sagemaker_binds_to(
    archive: Path,
) -> None:
    model = read_manifest(archive)["model"]
    assert model["modelName"] == "tiny"
    assert model["handler"] == "handler.py"
    assert model["configFile"] == "model-config.yaml"
    assert model["modelVersion"] == "1.0"


def test_the_manifest_is_that_of_the_model_archiver() -> None:
    """As torch-model-archiver 0.12.0 writes it, without the time of the build."""
    assert manifest_bytes(manifest_of("shapes")) == (
        b'{\n  "runtime": "python",\n  "model": {\n    "modelName": "shapes",\n'
        b'    "handler": "handler.py",\n    "modelVersion": "1.0",\n'
        b'    "configFile": "model-config.yaml"\n  },\n  "archiverVersion": "0.12.0"\n}'
    )


def stored_weights(archive: Path) -> dict[str, torch.Tensor]:
    with zipfile.ZipFile(archive) as packed:
        file = io.BytesIO(packed.read("model/weights.pt"))
    weights: dict[str, torch.Tensor] = torch.load(file, weights_only=True)
    return weights


def test_the_weights_are_tensors_alone_without_training_state(archive: Path) -> None:
    weights = stored_weights(archive)
    assert "backbone.bottom_up.stem.conv1.weight" in weights
    assert not [name for name in weights if "big" in name or "iteration" in name]
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_the_weights_are_those_of_a_network_made_quick(archive: Path) -> None:
    assert not [name for name in stored_weights(archive) if ".norm." in name]


def test_a_worker_uses_the_weights_in_the_mapped_file(unpacked: Path) -> None:
    folder = unpacked / "model"
    detector = NativeDetector.from_folder(folder, CPU, Settings())
    [mapping] = [
        line
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(folder / "weights.pt"))
    ]
    start, end = (int(address, 16) for address in mapping.split()[0].split("-"))
    weights = detector.model.state_dict()
    assert [name for name, tensor in weights.items() if not start <= tensor.data_ptr() < end] == []


def test_the_model_file_is_the_resolved_config(unpacked: Path) -> None:
    content = read_model_file(unpacked / "model", "native")
    assert decode_config(content) == load_config(CONFIG)


def test_the_original_config_stands_without_its_bases(unpacked: Path) -> None:
    path = unpacked / "model" / "detectron2.yaml"
    assert "_BASE_" not in yaml.safe_load(path.read_text())
    assert load_config(path) == load_config(CONFIG)


def test_an_archive_is_served_without_its_original_config(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path)
    (tmp_path / "model" / "detectron2.yaml").unlink()
    detector = NativeDetector.from_folder(tmp_path / "model", CPU, Settings())
    detector.warm_up()
    assert detector.num_classes == 5


def test_the_serving_settings_are_in_the_archive(checkpoint: Path, tmp_path: Path) -> None:
    archive = build_archive(
        CONFIG, checkpoint, tmp_path / "tiny.mar", model_config={"batchSize": 3}
    )
    with zipfile.ZipFile(archive) as packed:
        serving = yaml.safe_load(packed.read("model-config.yaml"))
    assert serving == DEFAULT_MODEL_CONFIG | {"batchSize": 3}


def test_the_command_reports_the_runtime_and_stores_it(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(arguments(CONFIG, checkpoint, tmp_path)) == 0
    assert "runtime: native (the config is supported)\n" in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "tiny.mar") as packed:
        serving = yaml.safe_load(packed.read("model-config.yaml"))
    assert serving["handler"]["runtime"] == "native"


def test_a_runtime_that_is_not_installed_is_rejected_in_one_line(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)
    with pytest.raises(
        RuntimeUnavailableError, match=r"^this model needs the detectron2 package.*$"
    ):
        invoke(arguments(CONFIG, checkpoint, tmp_path, "--runtime", "detectron2"))
    assert not list(tmp_path.iterdir())


def test_an_unknown_runtime_is_rejected(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"runtime is 'onnx', expected auto, native, detectron2"):
        build_archive(CONFIG, checkpoint, tmp_path / "tiny.mar", runtime="onnx")


@pytest.mark.parametrize("given", ["file", "names"])
def test_class_names_are_stored(checkpoint: Path, tmp_path: Path, given: str) -> None:
    file, names = tmp_path / "names.json", ["a", "b", "c", "d", "e"]
    file.write_text(json.dumps(names))
    class_names: Any = file if given == "file" else names
    named = build_archive(CONFIG, checkpoint, tmp_path / "named.mar", class_names=class_names)
    assert stored_class_names(named) == names


def test_names_beyond_ascii_have_labels_and_a_font(checkpoint: Path, tmp_path: Path) -> None:
    names = ["圆", "треугольник", "naïve", "مثلث", "ball"]
    named = build_archive(CONFIG, checkpoint, tmp_path / "named.mar", class_names=names)
    assert stored_class_names(named) == names
    with zipfile.ZipFile(named) as packed:
        packed.extractall(tmp_path / "unpacked")
    verify_folder(tmp_path / "unpacked")
    sums = (tmp_path / "unpacked" / "SHA256SUMS").read_text()
    assert "  model/labels.json\n" in sums
    assert "  model/labels.ttf\n" in sums
    labels = read_labels(tmp_path / "unpacked" / "model")
    assert labels.texts == {**dict(zip(names[:3], names[:3], strict=True)), "مثلث": "mthlth"}
    again = build_archive(CONFIG, checkpoint, tmp_path / "again" / "named.mar", class_names=names)
    assert again.read_bytes() == named.read_bytes()


def test_classes_without_names_are_numbered(archive: Path) -> None:
    assert stored_class_names(archive) == [f"class_{index}" for index in range(5)]


def stored_class_names(archive: Path) -> Any:
    with zipfile.ZipFile(archive) as packed:
        return json.loads(packed.read("model/classes.json"))


def test_builds_of_one_name_at_once_do_not_collide(checkpoint: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        builds = [
            pool.submit(
                build_archive, CONFIG, checkpoint, tmp_path / f"store{index % 2}" / "tiny.mar"
            )
            for index in range(3)
        ]
        archives = [build.result() for build in builds]
    for archive in archives:
        with zipfile.ZipFile(archive) as packed:
            assert packed.testzip() is None
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["tiny.mar", "tiny.mar"]


@pytest.mark.parametrize("name", ["", "a b", "../up", "a/b", ".hidden", "ü", "-x", "a,b"])
def test_a_name_that_is_no_file_name_is_rejected(
    checkpoint: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(CommandError, match="NAME"):
        invoke(
            [
                *("archive", "--config", str(CONFIG), "--weights", str(checkpoint)),
                *(f"--name={name}", "--model-store", str(tmp_path)),
            ]
        )


@pytest.mark.parametrize("name", ["tiny.zip", "tiny", "a b.mar", ".mar"])
def test_an_output_that_is_no_archive_is_rejected(
    checkpoint: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(CommandError, match=r"NAME is|expected a name that ends in \.mar"):
        build_archive(CONFIG, checkpoint, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_config_is_rejected(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"it has roi_heads\.mask_head"):
        build_archive(CONFIGS / "faster_rcnn_r18_avg_rgb.yaml", checkpoint, tmp_path / "tiny.mar")
    assert not list(tmp_path.iterdir())


def test_a_config_that_is_not_supported_is_rejected(checkpoint: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    fast_rcnn = "MODEL: {PROPOSAL_GENERATOR: {NAME: PrecomputedProposals}}"
    config.write_text(f"_BASE_: {CONFIG}\n{fast_rcnn}\n")
    with pytest.raises(ConfigError, match="Fast R-CNN needs"):
        build_archive(config, checkpoint, tmp_path / "store" / "tiny.mar")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        pytest.param('["a"]', "`things` has length 1.*NUM_CLASSES is 5", id="too few"),
        pytest.param('{"0": "a"}', "list of names", id="a mapping"),
        pytest.param("[1, 2, 3, 4, 5]", r"`things\[0\]` is 1", id="numbers"),
        pytest.param("[", "cannot be read", id="broken"),
    ],
)
def test_class_names_that_do_not_match_are_rejected(
    checkpoint: Path, tmp_path: Path, content: str, named: str
) -> None:
    classes = tmp_path / "classes.json"
    classes.write_text(content)
    with pytest.raises(ClassNamesError, match=named):
        build_archive(CONFIG, checkpoint, tmp_path / "tiny.mar", class_names=classes)


def test_the_command_line_reports_a_problem_without_a_traceback(
    checkpoint: Path, tmp_path: Path, repo_root: Path
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "d2serve.cli.main"),
            *arguments(tmp_path / "no.yaml", checkpoint, tmp_path),
        ],
        cwd=repo_root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "no.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def arguments(config: Path, checkpoint: Path, store: Path, *more: str) -> list[str]:
    return [
        *("archive", "--config", str(config), "--weights", str(checkpoint), "--name", "tiny"),
        *("--model-store", str(store), *more),
    ]


def config_with(path: Path, lines: str) -> Path:
    path.write_text(f"_BASE_: {CONFIG}\n{lines}\n")
    return path


def typo(folder: Path, checkpoint: Path) -> tuple[Path, Path]:
    return config_with(folder / "c.yaml", "MODEL: {ROI_HEADS: {NUM_CLASES: 3}}"), checkpoint


def three_classes(folder: Path, checkpoint: Path) -> tuple[Path, Path]:
    return config_with(folder / "c.yaml", "MODEL: {ROI_HEADS: {NUM_CLASSES: 3}}"), checkpoint


def cut_short(folder: Path, checkpoint: Path) -> tuple[Path, Path]:
    cut = folder / "cut.pth"
    cut.write_bytes(checkpoint.read_bytes()[:-10_000])
    return CONFIG, cut


def another_architecture(folder: Path, checkpoint: Path) -> tuple[Path, Path]:
    path = folder / "retinanet.pth"
    state = torch.load(checkpoint, weights_only=True)["model"]
    backbone = {name: tensor for name, tensor in state.items() if name.startswith("backbone.")}
    torch.save({"model": {**backbone, "head.cls_score.weight": torch.zeros(45, 8, 3, 3)}}, path)
    return CONFIG, path


def code(folder: Path, checkpoint: Path) -> tuple[Path, Path]:
    path = folder / "code.pkl"
    path.write_bytes(pickle.dumps({"model": Exploit(folder / "trace")}))
    return CONFIG, path


@pytest.mark.parametrize(
    ("make", "first_line", "somewhere"),
    [
        (typo, "this config is not supported: MODEL.ROI_HEADS.NUM_CLASES: 3", ""),
        (
            three_classes,
            "the checkpoint has 5 classes, the config 3 (MODEL.ROI_HEADS.NUM_CLASSES)",
            "shape of roi_heads.box_predictor.cls_score.bias: (6,), the config requires (4,)",
        ),
        (cut_short, "cut.pth: it is truncated, damaged or not a torch file", ""),
        (
            another_architecture,
            "another architecture than the config: it lacks proposal_generator, roi_heads "
            "and has head",
            "missing: proposal_generator.rpn_head.conv.weight",
        ),
        (code, "code.pkl: the pickle imports pathlib.Path.touch, which could run code", ""),
    ],
)
def test_a_problem_is_reported_and_the_previous_archive_kept(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path, Path], tuple[Path, Path]],
    first_line: str,
    somewhere: str,
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    older = store / "tiny.mar"
    older.write_bytes(b"an older archive")
    files = make(tmp_path, checkpoint)
    with pytest.raises(SystemExit) as ended:
        run(lambda: invoke(arguments(*files, store)))
    assert ended.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: ")
    assert first_line in lines[0]
    assert any(somewhere in line for line in lines)
    assert len(lines) <= 22
    assert [path.read_bytes() for path in store.iterdir()] == [b"an older archive"]
    assert not (tmp_path / "trace").exists()


def test_averaged_weights_are_chosen_and_reported(checkpoint: Path, tmp_path: Path) -> None:
    plain = torch.load(checkpoint, weights_only=True)["model"]
    averaged = {name: tensor + 1 for name, tensor in plain.items()}
    both, target = tmp_path / "both.pth", tmp_path / "tiny.mar"
    torch.save({"model": plain, "model_ema": averaged}, both)

    lines = list[str]()
    build_archive(CONFIG, both, target, report=lines.append)
    expected = "weights: model_ema, a running average; --weights-key model selects the plain ones"
    assert expected in lines
    assert_contains(target, averaged)

    lines.clear()
    build_archive(CONFIG, both, target, weights_key="model", report=lines.append)
    assert not [line for line in lines if line.startswith("weights:")]
    assert_contains(target, plain)


def assert_contains(archive: Path, weights: dict[str, torch.Tensor]) -> None:
    name = "proposal_generator.rpn_head.conv.weight"
    assert torch.equal(stored_weights(archive)[name], weights[name])


def test_numbered_classes_are_reported(checkpoint: Path, tmp_path: Path) -> None:
    config = config_with(tmp_path / "config.yaml", "DATASETS:\n  TEST: ('my_val',)")
    lines = list[str]()
    build_archive(config, checkpoint, tmp_path / "tiny.mar", report=lines.append)
    assert "class names: class_0, class_1, ...; name them with --classes names.json" in lines


def test_the_names_of_the_configs_dataset_are_in_the_archive(tmp_path: Path) -> None:
    config = config_with(
        tmp_path / "config.yaml",
        "MODEL: {ROI_HEADS: {NUM_CLASSES: 80}}\nDATASETS:\n  TEST: ('coco_2017_val',)",
    )
    weights, lines = tmp_path / "model_final.pth", list[str]()
    torch.save(GoldenModel("coco", config, None, ()).build().state_dict(), weights)
    archive = build_archive(config, weights, tmp_path / "tiny.mar", report=lines.append)
    assert "class names: from Detectron2's coco_2017_val (DATASETS.TEST)" in lines
    names = stored_class_names(archive)
    assert (len(names), names[0]) == (80, "person")


def test_a_lazy_config_that_training_saved_runs_on_our_own_network(tmp_path: Path) -> None:
    config = CONFIGS / "mask_rcnn_vitdet.yaml"
    model = GoldenModel("mask_rcnn_vitdet", config, None, ()).build()
    checkpoint = tmp_path / "model_final.pth"
    torch.save({"model": model.state_dict()}, checkpoint)
    first_line, _, rest = config.read_text().partition("\n")
    assert first_line.startswith("input:"), "training does not write this line"
    resize = "_target_: detectron2.data.transforms.ResizeShortestEdge"
    sizes = "short_edge_length: 256, max_size: 256"
    loader = f"dataloader: {{test: {{mapper: {{augmentations: [{{{resize}, {sizes}}}]}}}}}}"
    saved = tmp_path / "config.yaml"
    saved.write_text(f"{loader}\n{rest}")
    lines = list[str]()
    archive = build_archive(saved, checkpoint, tmp_path / "vitdet.mar", report=lines.append)
    assert "runtime: native (the config is supported)" in lines
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    kept = yaml.safe_load((folder / "model" / "detectron2.yaml").read_text())
    assert kept.keys() == {"model", "input", "datasets"}
    detector = NativeDetector.from_folder(folder / "model", CPU, Settings())
    assert detector.model.config == model.config


@pytest.mark.parametrize(
    ("model_config", "message"),
    [
        ({"precision": "bf16"}, "precision stands at the top, expected in the section handler"),
        ({"handler": {"precison": "bf16"}}, "handler setting precison does not exist"),
        ({"handler": {"threads": -1}}, "handler setting threads is -1"),
        ({"handler": "x"}, "the section handler is a str, expected a mapping"),
    ],
)
def test_invalid_model_config_is_rejected(
    checkpoint: Path, tmp_path: Path, model_config: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        build_archive(CONFIG, checkpoint, tmp_path / "a.mar", model_config=model_config)
    assert not (tmp_path / "a.mar").exists()


def test_settings_of_a_model_config_are_added_to_the_defaults(
    checkpoint: Path, tmp_path: Path
) -> None:
    given = {"batchSize": 2, "handler": {"threads": 1}}
    built = build_archive(CONFIG, checkpoint, tmp_path / "a.mar", model_config=given)
    with zipfile.ZipFile(built) as packed:
        content = yaml.safe_load(packed.read("model-config.yaml"))
    assert content == {
        **DEFAULT_MODEL_CONFIG,
        "batchSize": 2,
        "handler": {**DEFAULT_MODEL_CONFIG["handler"], "threads": 1},
    }


@pytest.mark.parametrize("kind", ["config", "weights"])
def test_folder_in_place_of_a_file_is_named_as_one(
    checkpoint: Path, tmp_path: Path, kind: str
) -> None:
    files = {"config": CONFIG, "weights": checkpoint, kind: tmp_path}
    with pytest.raises((ConfigError, CheckpointError), match="is a folder"):
        build_archive(files["config"], files["weights"], tmp_path / "a.mar")
