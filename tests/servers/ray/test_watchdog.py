"""The watchdog of `d2serve serve --server ray`, without Ray."""

import subprocess
import sys
from pathlib import Path

import psutil

from d2serve.servers.ray.watchdog import processes_of

# Starts a process that has a file of the folder open, and prints its id.
COMMAND = """
import subprocess, sys
from pathlib import Path
from d2serve.servers.ray.watchdog import watched

home = Path(sys.argv[1])
with watched(home):
    with (home / "log").open("w") as log:
        member = subprocess.Popen(["sleep", "600"], stdout=log, start_new_session=True)
    print(member.pid, flush=True)
    sys.stdin.read()
print("stopped", flush=True)
"""


def start(home: Path) -> "tuple[subprocess.Popen[str], psutil.Process]":
    home.mkdir()
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert command.stdout
    return command, psutil.Process(int(command.stdout.readline()))


def test_processes_and_folder_of_a_killed_command_are_removed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command, member = start(home)
    assert list(processes_of(home)) == [member.pid]
    [watchdog] = [each for each in psutil.Process(command.pid).children() if each != member]
    command.kill()
    command.communicate()
    gone, _ = psutil.wait_procs([member, watchdog], timeout=60)
    assert len(gone) == 2
    assert not home.exists()


def test_processes_that_remain_at_the_end_of_a_command_are_ended(tmp_path: Path) -> None:
    home = tmp_path / "home"
    command, member = start(home)
    printed, _ = command.communicate(timeout=60)
    assert printed == "stopped\n"
    assert command.returncode == 0
    assert not member.is_running() or member.status() == psutil.STATUS_ZOMBIE
    assert not home.exists()
