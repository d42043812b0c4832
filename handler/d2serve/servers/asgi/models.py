"""The models of one server process, from loading to shutdown."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from enum import Enum
from typing import Protocol

from d2serve.errors import not_found as no_such_model
from d2serve.errors import overloaded
from d2serve.messages import HttpRequest
from d2serve.metadata import ModelMetadata
from d2serve.outputs.open_inference_metadata import MODEL_VERSIONS
from d2serve.serving.requests import HttpResponse
from d2serve.settings import Settings

# A client that gets a 503 while the models load, or while this process stops, tries again after
# this time.
RETRY_AFTER_S = 2


# An archive has one version: `1` in KServe, `1.0` in TorchServe.
VERSIONS = (*MODEL_VERSIONS, "1.0")


class ServedModel(Protocol):
    """The part of a pipeline that the server uses."""

    @property
    def model(self) -> ModelMetadata:
        """The model's metadata."""
        ...

    @property
    def settings(self) -> Settings:
        """The operator's settings."""
        ...

    def check_room(self) -> None:
        """Raise a RequestError 503 if a request would be rejected, before its body is read."""
        ...

    def submit(self, request: HttpRequest) -> "Future[HttpResponse]":
        """Start to process a request; returns at once."""
        ...


class State(Enum):
    """The state of the models of a server."""

    LOADING = "the model is loading"
    READY = "the model is ready"
    STOPPING = "the server is stopping"
    FAILED = "the model cannot be used any more"


class Models:
    """Models by name, available when all of them are loaded and warmed up.

    Set from the thread that loads the models and read from the event loop.

    Args:
        names: the models' names; the first is the model of `/invocations`.

    Attributes:
        names: see `names`.
        state: whether the models can be used.

    Examples:
        >>> models = Models(["shapes"])
        >>> models.get("shapes")
        Traceback (most recent call last):
            ...
        d2serve.errors.RequestError: the model is loading
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.state = State.LOADING
        self._models: Mapping[str, ServedModel] = {}

    @classmethod
    def ready(cls, models: Mapping[str, ServedModel]) -> "Models":
        """Models that are loaded already."""
        served = cls(list(models))
        served.set_ready(models)
        return served

    @property
    def logs_requests(self) -> bool:
        """True if a model logs its requests, and until the models are loaded."""
        loaded = self._models.values()
        return not loaded or any(model.settings.request_log for model in loaded)

    def set_ready(self, models: Mapping[str, ServedModel]) -> None:
        """Make the loaded models available, unless the server is stopping already."""
        self._models = dict(models)
        if self.state is State.LOADING:
            self.state = State.READY

    def check_ready(self) -> None:
        """Return if the models are available.

        Raises:
            RequestError: 503 they are loading, or the server is stopping.
        """
        if self.state is not State.READY:
            raise overloaded(self.state.value, RETRY_AFTER_S)

    def check_name(self, name: str, version: str = VERSIONS[0]) -> None:
        """Return if the server has a model of this name and version, loaded or not.

        Raises:
            RequestError: 404 it has none.
        """
        if name not in self.names or version not in VERSIONS:
            raise no_such_model()

    def name_in(self, path: Mapping[str, str], default: str = "") -> str:
        """The name of the model in the parameters of a path, else the default.

        Raises:
            RequestError: 404 the server has no model of this name and version.
        """
        name = path.get("name", default)
        self.check_name(name, path.get("version", VERSIONS[0]))
        return name

    def get(self, name: str) -> ServedModel:
        """The model of a name.

        Raises:
            RequestError: 404 the model is unknown, 503 it is not available now.
        """
        self.check_name(name)
        self.check_ready()
        return self._models[name]
