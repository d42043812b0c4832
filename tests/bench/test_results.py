from pathlib import Path

import pytest

from bench.contest import Result
from bench.results import Run, read_run, write_run
from bench.timing import Timing
from d2serve.errors import CommandError


def run_with_parts() -> Run:
    """Of one contest with parts and one with a quicker and a slower peer."""
    machine = {
        "device": "cpu",
        "cpu": "Some CPU",
        "cores": 4,
        "threads": 2,
        "commit": "abc",
        "load_average": [1.0, 0.5, 0.25],
        "python": "3.11",
        "versions": {"torch": "2.6.0", "torchvision": "0.21.0", "detectron2": None},
    }
    parts = {"decode": (0.001, 0.002), "forward": (0.1, 0.2)}
    other_parts = {"decode": (0.002, 0.004)}
    whole = (
        Timing("d2serve", (0.11, 0.21), parts),
        Timing("detectron2", (0.22, 0.63), other_parts),
    )
    peers = (Timing("d2serve", (0.1, 0.1)), Timing("quick", (0.05, 0.05)), Timing("slow", (1, 1)))
    return Run(
        machine,
        (
            Result("requests", "fp32", "shapes", 2, "a note", whole),
            Result("masks", "640x480", "", 1, "", peers),
        ),
    )


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_run(path, run_with_parts())
    assert read_run(path) == run_with_parts()


@pytest.mark.parametrize("content", ["{", "[]", '{"machine": {}}', '{"results": [{"a": 1}]}'])
def test_another_file_is_an_error(content: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(CommandError, match=r"results.json is not what `make bench` writes"):
        read_run(path)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="does not exist; `make bench` writes it"):
        read_run(tmp_path / "results.json")
