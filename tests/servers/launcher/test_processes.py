import subprocess

import psutil

from d2serve.servers.torchserve.launcher.processes import end_process_group

IGNORES_SIGTERM = "trap '' TERM; sleep 1000 & echo $!; wait; wait"


def test_descendants_that_ignore_sigterm_are_killed() -> None:
    leader = subprocess.Popen(
        ["/bin/bash", "-c", IGNORES_SIGTERM], stdout=subprocess.PIPE, start_new_session=True
    )
    assert leader.stdout is not None
    with leader.stdout as output:
        descendant = psutil.Process(int(output.readline()))
    end_process_group(leader, grace_s=0.1)
    assert leader.returncode is not None
    assert not descendant.is_running() or descendant.status() == psutil.STATUS_ZOMBIE


def test_orphans_of_a_leader_that_has_exited_are_ended() -> None:
    leader = subprocess.Popen(
        ["/bin/bash", "-c", "sleep 1000 & echo $!"], stdout=subprocess.PIPE, start_new_session=True
    )
    assert leader.stdout is not None
    with leader.stdout as output:
        orphan = psutil.Process(int(output.readline()))
    leader.wait()
    end_process_group(leader, grace_s=5)
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
