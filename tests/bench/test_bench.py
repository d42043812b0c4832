"""`make bench` as a whole, on sizes that take a moment."""

import json
import subprocess
from pathlib import Path

import pytest

from bench.__main__ import STAGES, main
from bench.upstream import installed
from d2serve.errors import CommandError
from tests.environment import clean_environment


# Detectron2's own habits, where it is installed.
@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")
def test_every_stage_is_timed_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--quick", "--rounds", "1", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert ("detectron2 is left out" in printed) is not installed()
    content = json.loads((tmp_path / "results.json").read_text())
    assert list(dict.fromkeys(each["stage"] for each in content["results"])) == list(STAGES)
    for each in content["results"]:
        assert all(timing["seconds"][0] > 0 for timing in each["timings"])
        assert each["timings"][0]["name"] == "d2serve"
        assert each["case"] in printed
    requests = [each for each in content["results"] if each["stage"] == "requests"]
    assert {(each["model"], each["pictures"]) for each in requests} >= {
        *(("shapes", 1), ("shapes", 2)),
        *(("mask_rcnn_r50", 1), ("mask_rcnn_r50", 2)),
    }
    machine = content["machine"]
    assert machine["device"] == "cpu"
    assert machine["cores"] >= 1
    assert machine["versions"]["torch"]
    assert (tmp_path / "results.md").read_text().count("| d2serve ") >= len(content["results"])
    assert (tmp_path / "results.png").stat().st_size > 10_000


def test_a_stage_alone(tmp_path: Path) -> None:
    main(["--quick", "--rounds", "1", "--only", "nms", "--output", str(tmp_path)])
    content = json.loads((tmp_path / "results.json").read_text())
    assert {each["stage"] for each in content["results"]} == {"nms"}


def test_make_hands_the_options_on(repo_root: Path) -> None:
    refused = subprocess.run(
        ["make", "-o", ".venv/.installed", "bench", "BENCH=--quick --no-such"],
        cwd=repo_root,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode != 0
    assert "unrecognized arguments: --no-such" in refused.stderr


def test_a_device_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(CommandError, match="--device cuda: torch finds no CUDA device"):
        main(["--device", "cuda"])
