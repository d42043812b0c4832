"""The worker process as TorchServe starts it: its number, device and name."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from d2serve.serving.model_config import read_content, read_value

# Variables of SageMaker's PyTorch container; it reads the second only without the first.
WORKERS = (
    ("SAGEMAKER_TS_MIN_WORKERS", "SAGEMAKER_TS_MAX_WORKERS"),
    ("SAGEMAKER_MODEL_SERVER_WORKERS",),
)


def read_workers(model_config_file: Path, environment: Mapping[str, str] = os.environ) -> int:
    """Read the number of workers that TorchServe may start, 1 by default.

    It is set by model-config.yaml, else by the variables of SageMaker's container.

    Raises:
        SettingsError: the file is not a YAML mapping.
    """
    content = read_content(model_config_file)
    given: list[list[Any]] = [
        [content.get(name) for name in ("minWorkers", "maxWorkers")],
        *([read_value(environment.get(name, "")) for name in names] for names in WORKERS),
    ]
    for source in given:
        counts = [count for count in source if isinstance(count, int)]
        if counts:
            return max(1, *counts)
    return 1


def worker_device(context: Any) -> torch.device:
    """The GPU that TorchServe assigned to this worker, or else the CPU."""
    gpu = context.system_properties.get("gpu_id")
    if gpu is not None and torch.cuda.is_available():
        return torch.device("cuda", int(gpu))
    return torch.device("cpu")


def worker_name(context: Any) -> str:
    """TorchServe's name of this worker, such as W-9000-shapes_1.0; a restart keeps it.

    TorchServe gives its workers only their socket, whose path or port ends with the number.
    """
    connection = getattr(context, "cl_socket", None)
    address = connection.getsockname() if connection else ""
    number = address.rpartition(".")[2] if isinstance(address, str) else address[1]
    return f"W-{number}-{context.model_name}_{model_version(context)}"


def model_version(context: Any) -> str:
    """The version in the archive's manifest, 1.0 by default."""
    return str((context.manifest or {}).get("model", {}).get("modelVersion", "1.0"))
