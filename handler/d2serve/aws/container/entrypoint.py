"""Start AWS's inference toolkit as SageMaker's PyTorch container does: its `serve`.

Runs with the container's own packages. Two parts of a container are replaced: the toolkit's file
in /etc is written to the temporary folder, and the toolkit, which searches all processes for its
TorchServe, sees those of its own session only. The parent process starts it in a new session.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
from sagemaker_pytorch_serving_container import serving, torchserve


class OwnProcesses:
    """The part of psutil that the toolkit uses, limited to the processes of this session."""

    STATUS_ZOMBIE = psutil.STATUS_ZOMBIE

    @staticmethod
    def process_iter() -> Iterator[psutil.Process]:
        """Iterate over the processes that a container would have."""
        return filter(_is_in_session, psutil.process_iter())


def _is_in_session(process: psutil.Process) -> bool:
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
