"""Packing a model: what an archive holds, and what is refused before one is written."""

import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from d2serve.building.archive import SERVING_DEFAULTS, build_archive, main
from d2serve.building.checkpoint import read_checkpoint
from d2serve.building.config import load_config
from d2serve.building.runtimes import Choice, choose_runtime
from d2serve.building.yaml_config import ConfigError
from d2serve.cli.run import run
from d2serve.detections import Detections
from d2serve.detector.native import NativeDetector
from d2serve.errors import CheckpointError, CommandError
from d2serve.metadata import ClassNamesError
from d2serve.model.meta_arch import build_model
from d2serve.serving.integrity import parse_sums
from d2serve.settings import Settings
from tests.goldens.cases import CONFIGS, GoldenModel
from tests.building.checkpoint.saving import Exploit

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
    return build_archive(CONFIG, checkpoint, "tiny", tmp_path_factory.mktemp("store"))


def read_manifest(archive: Path) -> dict[str, dict[str, str]]:
    with zipfile.ZipFile(archive) as packed:
        manifest: dict[str, dict[str, str]] = json.loads(packed.read("MAR-INF/MANIFEST.json"))
    return manifest


def test_the_archive_holds_all_that_serving_needs(archive: Path, repo_root: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        names = set(packed.namelist())
    sources = {
        path.relative_to(repo_root).as_posix() for path in (repo_root / "handler").rglob("*.py")
    }
    assert names == sources | {
        "handler.py",
        "d2serve/servers/torchserve/metrics.yaml",
        "config.yaml",
        "weights.pt",
        "classes.json",
        "model-config.yaml",
        "MAR-INF/MANIFEST.json",
        "SHA256SUMS",
    }


def test_sha256sum_itself_checks_an_unpacked_archive(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path)
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    (tmp_path / "handler.py").write_text("changed")
    told = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert told.stdout == "service.py: FAILED\n"


def test_the_sums_are_those_of_all_files_but_the_settings(archive: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        sums = parse_sums(packed.read("SHA256SUMS"))
        names = {*packed.namelist()}
    assert sums.keys() == names - {"SHA256SUMS", "model-config.yaml"}


def test_the_same_model_gives_the_same_bytes(
    archive: Path, checkpoint: Path, tmp_path: Path
) -> None:
    assert build_archive(CONFIG, checkpoint, "tiny", tmp_path).read_bytes() == archive.read_bytes()


def test_the_config_is_read_and_told_once(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    read = []

    def choose(wanted: str, config: Path) -> Choice:
        read.append(config)
        return choose_runtime(wanted, config)

    monkeypatch.setattr("d2serve.building.archive.choose_runtime", choose)
    assert main(arguments(CONFIG, checkpoint, tmp_path)) == 0
    assert read == [CONFIG]
    assert capsys.readouterr().out.count("runtime: ") == 1


def test_the_manifest_names_handler_settings_and_the_version_that_sagemaker_binds_to(
    archive: Path,
) -> None:
    model = read_manifest(archive)["model"]
    assert model["modelName"] == "tiny"
    assert model["handler"] == "handler.py"
    assert model["configFile"] == "model-config.yaml"
    assert model["modelVersion"] == "1.0"


def stored_weights(archive: Path) -> dict[str, torch.Tensor]:
    with zipfile.ZipFile(archive) as packed:
        file = io.BytesIO(packed.read("weights.pt"))
    weights: dict[str, torch.Tensor] = torch.load(file, weights_only=True)
    return weights


def test_the_weights_are_tensors_alone_without_training_state(archive: Path) -> None:
    weights = stored_weights(archive)
    assert "backbone.bottom_up.stem.conv1.weight" in weights
    assert not [name for name in weights if "big" in name or "iteration" in name]
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_the_weights_are_those_of_a_network_made_quick(archive: Path) -> None:
    assert not [name for name in stored_weights(archive) if ".norm." in name]


def test_a_worker_computes_with_the_weights_where_they_lie_in_the_archive(
    archive: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path)
    detector = NativeDetector.from_folder(tmp_path, torch.device("cpu"), Settings())
    [mapping] = [
        line
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(tmp_path / "weights.pt"))
    ]
    start, end = (int(address, 16) for address in mapping.split()[0].split("-"))
    weights = detector.model.state_dict()
    assert [name for name, held in weights.items() if not start <= held.data_ptr() < end] == []


def test_an_archive_of_before_with_plain_weights_is_served_as_well(
    archive: Path, checkpoint: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    [now] = NativeDetector.from_folder(tmp_path, torch.device("cpu"), Settings()).detect([picture])
    (tmp_path / "weights.pt").unlink()
    model = build_model(
        load_config(tmp_path / "config.yaml"), read_checkpoint(checkpoint), torch.device("cpu")
    )
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    np.savez(tmp_path / "weights.npz", **arrays)
    [old] = NativeDetector.from_folder(tmp_path, torch.device("cpu"), Settings()).detect([picture])
    assert isinstance(now.found, Detections)
    assert isinstance(old.found, Detections)
    assert len(now.found) > 0
    np.testing.assert_allclose(now.found.boxes_xyxy, old.found.boxes_xyxy, atol=1e-3)
    np.testing.assert_allclose(now.found.scores, old.found.scores, atol=1e-5)


def test_the_config_in_the_archive_stands_without_its_bases(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert "_BASE_" not in config
    detector = NativeDetector.from_folder(tmp_path, torch.device("cpu"), Settings())
    detector.warm_up()
    assert detector.num_classes == 5


def test_the_serving_settings_are_in_the_archive(checkpoint: Path, tmp_path: Path) -> None:
    archive = build_archive(CONFIG, checkpoint, "tiny", tmp_path, serving={"batchSize": 3})
    with zipfile.ZipFile(archive) as packed:
        serving = yaml.safe_load(packed.read("model-config.yaml"))
    assert serving == SERVING_DEFAULTS | {"batchSize": 3}


def test_the_command_says_what_the_model_runs_on_and_stores_it(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--config", str(CONFIG), "--weights", str(checkpoint)]
    assert main([*files, "--name", "tiny", "--model-store", str(tmp_path)]) == 0
    assert "runtime: native (the config is supported)\n" in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "tiny.mar") as packed:
        serving = yaml.safe_load(packed.read("model-config.yaml"))
    assert serving["handler"]["runtime"] == "native"


def test_a_runtime_that_is_not_installed_is_refused_in_one_line(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)
    files = ["--config", str(CONFIG), "--weights", str(checkpoint), "--name", "tiny"]
    with pytest.raises(CommandError, match=r"^this model needs the detectron2 package.*$"):
        main([*files, "--model-store", str(tmp_path), "--runtime", "detectron2"])
    assert not list(tmp_path.iterdir())


def test_class_names_are_taken_or_numbered(checkpoint: Path, tmp_path: Path, archive: Path) -> None:
    named = tmp_path / "names.json"
    named.write_text('["a", "b", "c", "d", "e"]')
    with zipfile.ZipFile(
        build_archive(CONFIG, checkpoint, "named", tmp_path, classes=named)
    ) as packed:
        assert json.loads(packed.read("classes.json")) == ["a", "b", "c", "d", "e"]
    with zipfile.ZipFile(archive) as packed:
        assert json.loads(packed.read("classes.json")) == [f"class_{index}" for index in range(5)]


def test_builds_of_one_name_at_once_do_not_collide(checkpoint: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(3) as pool:
        builds = [
            pool.submit(build_archive, CONFIG, checkpoint, "tiny", tmp_path / f"store{index % 2}")
            for index in range(3)
        ]
        archives = [build.result() for build in builds]
    for archive in archives:
        with zipfile.ZipFile(archive) as packed:
            assert packed.testzip() is None
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["tiny.mar", "tiny.mar"]


@pytest.mark.parametrize("name", ["", "a b", "../up", "a/b", ".hidden", "ü", "-x", "a,b"])
def test_a_name_that_is_no_file_name_is_refused(
    checkpoint: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(CommandError, match="NAME"):
        build_archive(CONFIG, checkpoint, name, tmp_path)


def test_a_checkpoint_of_another_config_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"it has roi_heads\.mask_head"):
        build_archive(CONFIGS / "faster_rcnn_r18_avg_rgb.yaml", checkpoint, "tiny", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_config_that_is_not_supported_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"_BASE_: {CONFIG}\nMODEL: {{LOAD_PROPOSALS: True}}\n")
    with pytest.raises(ConfigError, match="LOAD_PROPOSALS: True"):
        build_archive(config, checkpoint, "tiny", tmp_path / "store")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        pytest.param('["a"]', "holds 1 names.*NUM_CLASSES is 5", id="too few"),
        pytest.param('{"0": "a"}', "list of names", id="a mapping"),
        pytest.param("[1, 2, 3, 4, 5]", "name 0 of things is 1", id="numbers"),
        pytest.param("[", "cannot be read", id="broken"),
    ],
)
def test_class_names_that_do_not_fit_are_refused(
    checkpoint: Path, tmp_path: Path, content: str, named: str
) -> None:
    classes = tmp_path / "classes.json"
    classes.write_text(content)
    with pytest.raises(ClassNamesError, match=named):
        build_archive(CONFIG, checkpoint, "tiny", tmp_path / "store", classes=classes)


def test_the_command_line_reports_a_problem_without_a_traceback(
    checkpoint: Path, tmp_path: Path, repo_root: Path
) -> None:
    arguments = ["--config", str(tmp_path / "no.yaml"), "--weights", str(checkpoint)]
    done = subprocess.run(
        [sys.executable, "-m", "d2serve.building.archive", *arguments, "--name", "tiny"],
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
        *("--config", str(config), "--weights", str(checkpoint), "--name", "tiny"),
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
            "shape of roi_heads.box_predictor.cls_score.bias: (6,), the config needs (4,)",
        ),
        (cut_short, "cut.pth: it is cut short, damaged or no torch file", ""),
        (
            another_architecture,
            "another architecture than the config: it lacks proposal_generator, roi_heads "
            "and has head",
            "missing: proposal_generator.rpn_head.conv.weight",
        ),
        (code, "code.pkl: the pickle asks for pathlib.Path.touch, which could run code", ""),
    ],
)
def test_a_problem_is_told_and_an_older_archive_of_that_name_stays(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
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
    monkeypatch.setattr(sys, "argv", ["archive", *arguments(*files, store)])
    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("error: ")
    assert first_line in lines[0]
    assert any(somewhere in line for line in lines)
    assert len(lines) <= 22
    assert [path.read_bytes() for path in store.iterdir()] == [b"an older archive"]
    assert not (tmp_path / "trace").exists()


def test_averaged_weights_are_taken_and_said_so(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = torch.load(checkpoint, weights_only=True)["model"]
    averaged = {name: tensor + 1 for name, tensor in plain.items()}
    both = tmp_path / "both.pth"
    torch.save({"model": plain, "model_ema": averaged}, both)

    assert main(arguments(CONFIG, both, tmp_path)) == 0
    said = "weights: model_ema, a running average; WEIGHTS_KEY=model takes the plain ones"
    assert said in capsys.readouterr().out.splitlines()
    assert_holds(tmp_path / "tiny.mar", averaged)

    assert main(arguments(CONFIG, both, tmp_path, "--weights-key", "model")) == 0
    assert "weights:" not in capsys.readouterr().out
    assert_holds(tmp_path / "tiny.mar", plain)


def assert_holds(archive: Path, weights: dict[str, torch.Tensor]) -> None:
    name = "proposal_generator.rpn_head.conv.weight"
    assert torch.equal(stored_weights(archive)[name], weights[name])


def test_it_says_where_nobody_named_the_classes(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_with(tmp_path / "config.yaml", "DATASETS:\n  TEST: ('my_val',)")
    assert main(arguments(config, checkpoint, tmp_path)) == 0
    assert "\nclass names: class_0, class_1, ...; CLASSES=" in capsys.readouterr().out


def test_the_names_of_the_configs_dataset_are_in_the_archive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_with(
        tmp_path / "config.yaml",
        "MODEL: {ROI_HEADS: {NUM_CLASSES: 80}}\nDATASETS:\n  TEST: ('coco_2017_val',)",
    )
    weights = tmp_path / "model_final.pth"
    torch.save(GoldenModel("coco", config, None, ()).build().state_dict(), weights)
    assert main(arguments(config, weights, tmp_path)) == 0
    assert "class names: Detectron2's for coco_2017_val" in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "tiny.mar") as packed:
        names = json.loads(packed.read("classes.json"))
    assert (len(names), names[0]) == (80, "person")


def test_a_lazy_config_that_training_saved_is_served_by_the_handler_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CONFIGS / "mask_rcnn_vitdet.yaml"
    model = GoldenModel("mask_rcnn_vitdet", config, None, ()).build()
    checkpoint = tmp_path / "model_final.pth"
    torch.save({"model": model.state_dict()}, checkpoint)
    first_line, _, rest = config.read_text().partition("\n")
    assert first_line.startswith("input:"), "else training never wrote this"
    resize = "_target_: detectron2.data.transforms.ResizeShortestEdge"
    sizes = "short_edge_length: 256, max_size: 256"
    loader = f"dataloader: {{test: {{mapper: {{augmentations: [{{{resize}, {sizes}}}]}}}}}}"
    saved = tmp_path / "config.yaml"
    saved.write_text(f"{loader}\n{rest}")
    arguments = ["--config", str(saved), "--weights", str(checkpoint), "--name", "vitdet"]
    assert main([*arguments, "--model-store", str(tmp_path)]) == 0
    assert "runtime: native (the config is supported)" in capsys.readouterr().out
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(tmp_path / "vitdet.mar") as packed:
        packed.extractall(folder)
    kept = yaml.safe_load((folder / "config.yaml").read_text())
    assert kept.keys() == {"model", "input", "datasets"}
    detector = NativeDetector.from_folder(folder, torch.device("cpu"), Settings())
    assert detector.model.config == model.config
