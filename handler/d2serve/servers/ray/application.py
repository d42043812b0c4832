"""Build the Ray Serve application of one model, after the model has processed test images."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import serve
from starlette.types import ASGIApp

from d2serve.servers.asgi.model_folders import model_name_of
from d2serve.servers.ray.archives import local_folder, name_of
from d2serve.servers.ray.deployment import deployment_options
from d2serve.servers.ray.options import ApplicationOptions
from d2serve.servers.ray.replica import ModelReplica, identity
from d2serve.serving.model_config import MODEL_CONFIG_FILE, read_settings

logger = logging.getLogger(__name__)
# Settings that only a GPU supports, replaced where the model is checked without one.
CPU_SETTINGS = {"decode": "cpu", "cuda_graphs": False, "precision": "fp32"}


def build_application(
    options: ApplicationOptions, wrap: Callable[[ASGIApp], ASGIApp] = identity
) -> Any:
    """Build the application; see `d2serve.servers.ray.build`.

    Args:
        options: the arguments.
        wrap: called in each replica with its ASGI application; returns the one to serve.

    Raises:
        SettingsError: a setting is not valid.
        ArchiveError: the archive is missing, damaged or malicious.
        RuntimeError: the model cannot process an image.
    """
    folder = local_folder(options.archive)
    settings = read_settings(folder / MODEL_CONFIG_FILE, overrides=options.settings)
    name = options.name or model_name_of(Path(name_of(options.archive)))
    if options.check_model:
        check_model(folder, name, options.settings)
    deployment = serve.deployment(serve.ingress()(ModelReplica))
    return deployment.options(**deployment_options(options, settings)).bind(options, name, wrap)


def check_model(folder: Path, name: str, overrides: Mapping[str, Any]) -> None:
    """Load the model in this process, run test images through it, and free it.

    Raises:
        SettingsError, ConfigError, CheckpointError, ClassNamesError, ArchiveError: one of them is
            not valid.
        RuntimeError: the model cannot process an image.
    """
    import torch

    from d2serve.serving.loading import load_pipeline

    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    replaced = CPU_SETTINGS if device.type == "cpu" else {}
    pipeline = load_pipeline(folder, device, name, overrides={**overrides, **replaced})
    pipeline.close()
    logger.info("model %s has processed test images", name)
