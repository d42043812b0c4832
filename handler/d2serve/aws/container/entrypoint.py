"""Starts AWS's inference toolkit as SageMaker's PyTorch container does: its `serve`.

Runs with the container's own packages. Two things of a container cannot be had outside one, and
are stood in for: a root folder of its own, so the toolkit's one file in /etc is written into this
home; and a process table of its own, for the toolkit looks for its TorchServe in all of it.
Whoever runs this gives it a session of its own, which then is that table.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
from sagemaker_pytorch_serving_container import serving, torchserve


class OwnProcesses:
    """As much of psutil as the toolkit uses, for the processes of this session."""

    STATUS_ZOMBIE = psutil.STATUS_ZOMBIE

    @staticmethod
    def process_iter() -> Iterator[psutil.Process]:
        """What `ps` would show in the container."""
        return filter(_is_ours, psutil.process_iter())


def _is_ours(process: psutil.Process) -> bool:
    try:
        return os.getsid(process.pid) == os.getsid(0)
    except ProcessLookupError:
        return False


def main(home: Path) -> None:
    """Serve until TorchServe ends."""
    torchserve.TS_CONFIG_FILE = str(home / "sagemaker-ts.properties")
    torchserve.psutil = OwnProcesses
    serving.main()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
