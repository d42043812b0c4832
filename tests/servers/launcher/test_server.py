import sys
from pathlib import Path

import pytest

from d2serve.errors import CommandError, ServerError
from d2serve.servers.torchserve.launcher import server
from d2serve.servers.torchserve.launcher.server import (
    CONSOLE,
    MODEL,
    SERVER,
    ServerLogs,
    running_server,
)


def test_a_missing_archive_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(ServerError, match=r"absent\.mar does not exist; build it with `d2serve arc"),
        running_server(tmp_path / "absent.mar", log_dir=tmp_path),
    ):
        pass


def test_a_file_that_is_not_an_archive_is_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mar"
    broken.write_text("not a zip")
    with (
        pytest.raises(ServerError, match=r"broken\.mar is not a model archive"),
        running_server(broken, log_dir=tmp_path),
    ):
        pass


def test_the_error_without_torchserve_names_the_install_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "find_spec", lambda _: None)
    with (
        pytest.raises(CommandError, match=r'torchserve, .* pip install "d2serve\[torchserve\]"'),
        running_server(tmp_path / "absent.mar", log_dir=tmp_path),
    ):
        pass


def test_the_error_without_psutil_names_the_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processes = "d2serve.servers.torchserve.launcher.processes"
    monkeypatch.delitem(sys.modules, processes)
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(CommandError, match=r'psutil, .* pip install "d2serve\[torchserve\]"'):
        __import__(processes)


def test_logs_exclude_earlier_runs(tmp_path: Path) -> None:
    log = tmp_path / SERVER
    log.write_text("an earlier run\n")
    logs = ServerLogs(tmp_path)
    assert logs.text(SERVER) == ""
    with log.open("a") as lines:
        lines.write("this run\n")
    assert logs.text(SERVER) == "this run\n"


def test_all_of_a_rotated_log_belongs_to_this_run(tmp_path: Path) -> None:
    log = tmp_path / SERVER
    log.write_text("an earlier, long run\n")
    logs = ServerLogs(tmp_path)
    log.write_text("new\n")
    assert logs.text(SERVER) == "new\n"


@pytest.mark.parametrize(
    ("written", "tail"),
    [
        ({}, "(the logs are empty)"),
        ({CONSOLE: "no java\n"}, "no java"),
        ({CONSOLE: "console\n", SERVER: "server\n"}, "server"),
        ({CONSOLE: "console\n", SERVER: "server\n", MODEL: "1\n2\n3\n"}, "2\n3"),
    ],
)
def test_the_tail_is_from_the_log_closest_to_the_model(
    tmp_path: Path, written: dict[str, str], tail: str
) -> None:
    logs = ServerLogs(tmp_path / "made")
    for name, text in written.items():
        (logs.folder / name).write_text(text)
    assert logs.tail(lines=2) == tail
