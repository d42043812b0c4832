"""Ends a child process together with everything it has started."""

import os
import subprocess
import time
from contextlib import suppress

import psutil
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

POLL_S = 0.2


def wait_for(process: subprocess.Popen[bytes]) -> None:
    """Return when the process has ended; whatever signal comes meanwhile is handled within moments.

    One that comes right before a call that waits for good would be handled after the call.
    """
    while process.poll() is None:
        time.sleep(POLL_S)


def end_process_group(leader: subprocess.Popen[bytes], grace_s: float = 15) -> None:
    """Terminate the group that `leader` heads, and kill what is left of it after `grace_s`.

    The leader must have been started with `start_new_session=True`: then the group holds its
    descendants alone, orphans included.
    """
    for member in living_members(leader.pid):
        with suppress(psutil.NoSuchProcess):
            member.terminate()
    _wait_for_the_end(leader.pid, grace_s)
    for straggler in living_members(leader.pid):
        with suppress(psutil.NoSuchProcess):
            straggler.kill()
    _wait_for_the_end(leader.pid, grace_s)
    leader.wait()


def _wait_for_the_end(group: int, within_s: float) -> None:
    polling = Retrying(
        stop=stop_after_delay(within_s), wait=wait_fixed(0.05), retry=retry_if_result(bool)
    )
    with suppress(RetryError):
        polling(living_members, group)


def living_members(group: int) -> list[psutil.Process]:
    """The processes of a group, orphans included, but for zombies."""
    return [process for process in psutil.process_iter() if _lives_in(group, process)]


def _lives_in(group: int, process: psutil.Process) -> bool:
    try:
        # Where process 1 adopts no orphans, as in many containers, they stay zombies for good.
        return os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, psutil.Error):
        return False
