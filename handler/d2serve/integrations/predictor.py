"""The source of predictions: a model in this process, or one on a server or endpoint."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from d2serve.detections import Detections
from d2serve.errors import CommandError, ImageError, PredictionError, RequestError

EXPECTED = "a URL of a server, a model's archive or a SageMaker endpoint"
# A prediction of one image, or one option, failed; the next image may succeed.
PREDICTION_ERRORS = (RequestError, ImageError, PredictionError, OSError)


class Predictor(Protocol):
    """The interface of a model for integrations: that of `d2serve.Model` and `d2serve.Client`."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the instance classes, in the order of the class indices."""
        ...

    def predict(
        self,
        images: Any,
        *,
        score_threshold: float | None = None,
        classes: Iterable[str | int] | None = None,
    ) -> list[Detections]:
        """Detect instances in one or many images; see `d2serve.Model.predict`."""
        ...

    def close(self) -> None:
        """Free the model's memory or close the connections."""
        ...


def open_predictor(
    *,
    url: str | None = None,
    model: str | Path | None = None,
    endpoint: str | None = None,
    token: str | None = None,
    ca: str | Path | None = None,
    region: str | None = None,
    target_model: str | None = None,
    device: str = "cpu",
) -> Predictor:
    """Load a model in this process, or connect to a server or an endpoint.

    Args:
        url: URL of a server, such as `http://127.0.0.1:8080`.
        model: an archive to run in this process; together with `url`, the name of one of the
            server's models.
        endpoint: name of a SageMaker endpoint.
        token: bearer token of a server that requires one.
        ca: PEM file of certificates to trust instead of the system's.
        region: AWS region of the endpoint; by default that of the AWS configuration.
        target_model: `NAME.tar.gz` of a multi-model endpoint.
        device: torch device of a model in this process.

    Raises:
        CommandError: the arguments name no source or several, or an argument is invalid.
        D2ServeError: the model cannot be loaded, or the endpoint does not exist.

    Examples:
        >>> predictor = open_predictor(model="model-store/shapes.mar")
        >>> predictor.class_names
        ('circle', 'triangle', 'square', 'star', 'cross', 'ring')
        >>> predictor.close()
    """
    if url and endpoint:
        raise CommandError(f"`url` and `endpoint` are mutually exclusive; give {EXPECTED}")
    if url or endpoint:
        from d2serve.client import Client

        return Client(
            url or endpoint or "",
            model=None if model is None else str(model),
            token=token,
            ca=None if ca is None else Path(ca),
            region=region,
            target_model=target_model,
        )
    if not model:
        raise CommandError(f"`url`, `model` and `endpoint` are empty; give {EXPECTED}")
    from d2serve.api import load

    return load(model, device=device)


def split_names(text: str) -> tuple[str, ...]:
    """Split a list of names at commas.

    Examples:
        >>> split_names("traffic light, car")
        ('traffic light', 'car')
    """
    return tuple(name.strip() for name in text.split(",") if name.strip())
