"""The command, without its servers."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.peers import __main__ as command
from bench.peers.rounds import Result


def test_a_run_that_is_stopped_leaves_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure_and_be_stopped(*_: object) -> Iterator[Result]:
        yield Result("shapes fp32", "requests/s", "naive", (40.0,), (4.0,), "at least 10", "a note")
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_measure", measure_and_be_stopped)
    with pytest.raises(KeyboardInterrupt):
        command.main(["--output", str(tmp_path)])
    [result] = json.loads((tmp_path / "peers.json").read_text())["results"]
    assert result["ratio"]["median"] == 10
    assert "- shapes fp32, requests/s beside naive: a note" in (tmp_path / "peers.md").read_text()
