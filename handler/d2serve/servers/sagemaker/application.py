"""The Ray Serve application of a SageMaker package, for AWS's Ray container."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from d2serve.errors import SettingsError
from d2serve.servers.sagemaker.adapted import Adapted, Application
from d2serve.servers.sagemaker.watchdog import hold_lock, lock_file, start_watchdog

# Set by the container: the folder to which SageMaker unpacks a package.
MODEL_DIR_VARIABLE = "SM_MODEL_DIR"
MODEL_DIR = "/opt/ml/model"
REPLICAS_VARIABLE = "D2SERVE_REPLICAS"
# One serves while Ray replaces the other.
CPU_REPLICAS = 2
LIST_GPUS = ("nvidia-smi", "--list-gpus")


def build(args: dict[str, Any]) -> Any:
    """Build the application of the container; returns when the model has processed test images.

    Args:
        args: see `d2serve.servers.ray:build`. `archive` is relative to the package. By default
            there is a replica for each GPU of the machine, or two on its CPUs.

    Raises:
        SettingsError: an argument, or D2SERVE_REPLICAS, is not valid.
        ArchiveError: the package is damaged.
        RuntimeError: the model cannot process an image.
    """
    from d2serve.servers.ray.application import build_application
    from d2serve.servers.ray.options import ApplicationOptions

    archive = Path(os.environ.get(MODEL_DIR_VARIABLE, MODEL_DIR), args["archive"])
    gpus = count_gpus()
    defaults = {"num_replicas": replicas(gpus), "num_gpus": min(gpus, 1)}
    options = ApplicationOptions.from_args({**defaults, **args, "archive": str(archive)})
    application = build_application(options, wrap=adapt)
    start_watchdog()
    return application


def adapt(application: Application) -> Application:
    """Prepare the application of a replica: for AWS's adapter, and for the watchdog."""
    return Adapted(application, hold_lock(lock_file()))


def replicas(gpus: int) -> int:
    """The number of replicas on a machine.

    Raises:
        SettingsError: D2SERVE_REPLICAS is not a number from 1.
    """
    given = os.environ.get(REPLICAS_VARIABLE)
    if given is None:
        return gpus or CPU_REPLICAS
    if not given.isdecimal() or int(given) < 1:
        raise SettingsError(f"{REPLICAS_VARIABLE} is {given!r}, expected an integer of at least 1")
    return int(given)


def count_gpus() -> int:
    """The number of NVIDIA GPUs, as the container's entrypoint counts them for Ray.

    Ray hides them from the process that builds the application.
    """
    if shutil.which(LIST_GPUS[0]) is None:
        return 0
    listed = subprocess.run(LIST_GPUS, capture_output=True, text=True)
    return len(listed.stdout.splitlines()) if listed.returncode == 0 else 0
