from pathlib import Path

import pytest

from d2serve.servers.torchserve.launcher.server import CONSOLE, MODEL, SERVER, ServerLogs


def test_only_this_run_is_read(tmp_path: Path) -> None:
    log = tmp_path / SERVER
    log.write_text("an earlier run\n")
    logs = ServerLogs(tmp_path)
    assert logs.text(SERVER) == ""
    with log.open("a") as lines:
        lines.write("this run\n")
    assert logs.text(SERVER) == "this run\n"


def test_a_log_that_was_rolled_over_is_read_whole(tmp_path: Path) -> None:
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
def test_tail_is_of_the_log_closest_to_the_model(
    tmp_path: Path, written: dict[str, str], tail: str
) -> None:
    logs = ServerLogs(tmp_path / "made")
    for name, text in written.items():
        (logs.folder / name).write_text(text)
    assert logs.tail(lines=2) == tail
