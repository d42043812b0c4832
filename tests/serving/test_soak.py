"""The short form of `make soak`: all of its traffic, and a worker killed in the middle."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.soak import command
from bench.soak.outcomes import Restart, killing
from tests.polling import wait_until

pytestmark = pytest.mark.serving

SHORT = ["--minutes", "0.25", "--clients", "8", "--hostile", "0.25"]
# Enough snapshots of the memory before the kill.
WARM_UP_S, EVERY_S, KILL_AT_S = 2.0, 0.1, 6.0
# In which a killed worker is back, after the traffic if need be.
BACK_WITHIN_S = 120
# Latency and memory depend on other programs on the machine.
OF_THE_MACHINE = ("p99", "worst minute", "memory growth")


@contextmanager
def killing_until_back(
    ready: Callable[[], set[int]], moments: Sequence[float]
) -> Iterator[list[Restart]]:
    with killing(ready, moments) as restarts:
        yield restarts
        wait_until(lambda: len(restarts) == len(moments), BACK_WITHIN_S)


@pytest.mark.parametrize("server_name", ["torchserve", "asgi"])
def test_a_short_soak_shows_no_fault(
    shapes_mar: Path,
    tmp_path: Path,
    server_name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    parse = command.parse
    monkeypatch.setattr(command, "parse", lambda given: (parse(given)[0], [KILL_AT_S]))
    monkeypatch.setattr(command, "killing", killing_until_back)
    monkeypatch.setattr(command, "WARM_UP_S", WARM_UP_S)
    monkeypatch.setattr(command, "EVERY_S", EVERY_S)
    monkeypatch.setattr(command, "LOGS", tmp_path / "logs")
    options = ["--model", str(shapes_mar), *SHORT, "--server", server_name, "--out", str(tmp_path)]
    ended = command.main(options)
    printed = capsys.readouterr().out
    found: dict[str, Any] = json.loads((tmp_path / "soak.json").read_text())
    rows = {row["name"]: row for row in found["checks"]}
    assert ended == int(not all(row["passed"] for row in rows.values()))
    failed = [row for row in rows.values() if not row["passed"]]
    faults = [row for row in failed if not row["name"].startswith(OF_THE_MACHINE)]
    assert not faults, (faults, found["faults"])
    assert len(found["restarts"]) == 1
    assert found["outcomes"]["right"]["good"] > 0
    assert found["outcomes"]["refused as required"]["hostile"] > 0
    assert found["outcomes"]["disconnected by the client"]["hostile"] > 0
    assert any(name.startswith("memory growth: worker") for name in rows)
    assert (tmp_path / "soak.png").stat().st_size > 10_000
    assert all(text in printed for text in ("| check ", str(tmp_path / "soak")))
