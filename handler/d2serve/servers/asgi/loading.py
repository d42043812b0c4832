"""Load the models of a server process."""

from pathlib import Path
from typing import TYPE_CHECKING

from d2serve.errors import D2ServeError, ServerError
from d2serve.servers.asgi.config import ServerConfig
from d2serve.servers.asgi.metrics import ServerMetrics

if TYPE_CHECKING:
    # torch takes seconds to import, and HTTP does not wait for it.
    from d2serve.serving.pipeline import Pipeline


def load_models(config: ServerConfig, metrics: ServerMetrics) -> "dict[str, Pipeline]":
    """Load the models of a configuration, one after the other, for the rest of this process.

    Raises:
        ServerError: a model cannot be loaded.
        RuntimeError: a model cannot run on this machine.
    """
    import torch

    from d2serve.serving.loading import load_pipeline
    from d2serve.serving.process import freeze_objects

    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    share = len(config.folders)
    pipelines = {}
    for name, folder in config.folders.items():
        sink = metrics.sink(name)
        try:
            pipelines[name] = load_pipeline(Path(folder), device, name, share=share, sink=sink)
        except D2ServeError as error:
            raise ServerError(f"model {name} cannot be loaded: {error}") from error
    freeze_objects()
    return pipelines
