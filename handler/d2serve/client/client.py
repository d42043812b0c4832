"""Send images through any transport, with retries."""

import time
from collections.abc import Callable
from typing import Any

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from d2serve.client.predictions import Prediction, read_predictions
from d2serve.client.transport import JSON, ImageInput, Payload, Reply, Transport
from d2serve.errors import PredictionError, UnreachableError

ATTEMPTS = 6


class Client:
    """Sends images to one server or endpoint.

    A request is retried up to ATTEMPTS times, with growing pauses, after a 429 or 503, after a 5xx
    of a SageMaker container, and while the server does not accept connections yet.

    Args:
        transport: connection to the server or endpoint; closed together with the client.
        sleep: called with the seconds to pause between attempts.

    Examples:
        >>> from pathlib import Path
        >>> from d2serve.client import Client, HttpTransport
        >>> with Client(HttpTransport("http://127.0.0.1:8080/invocations")) as client:
        ...     [prediction] = client.detect(Path("image.jpg"))  # doctest: +SKIP
    """

    def __init__(
        self, transport: Transport, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._transport = transport
        self._retrying = Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            retry=retry_if_exception(_is_transient),
            sleep=sleep,
            reraise=True,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def detect(self, image: ImageInput, **options: Any) -> list[Prediction]:
        """Return one Prediction per image; an array may contain several images.

        Raises:
            PredictionError: the server returned an error for the request or one of its images.
            UnreachableError: the server or endpoint does not exist.
        """
        return read_predictions(self.predict(image, **options).json())

    def predict(self, image: ImageInput, *, accept: str = JSON, **options: Any) -> Reply:
        """Send an image and return the unparsed response; raises as `send` does."""
        return self.send(Payload.of(image, accept, **options))

    def send(self, payload: Payload) -> Reply:
        """Send a request and return the unparsed response.

        Raises:
            PredictionError: the server returned an error, or the connection failed midway.
            UnreachableError: the server or endpoint does not exist.
        """
        return self._retrying(self._transport.send, payload)


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, PredictionError):
        return error.is_transient
    return isinstance(error, UnreachableError)
