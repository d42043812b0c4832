"""Send images by any transport, with retries."""

import time
from collections.abc import Callable
from typing import Any

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from d2serve.client.predictions import Prediction, read_predictions
from d2serve.client.transport import (
    JSON,
    Payload,
    Picture,
    PredictionError,
    Reply,
    Transport,
    UnreachableError,
)

ATTEMPTS = 6


class Client:
    """Sends pictures to one server.

    What a server answers with 429 or 503, what SageMaker answers with a 5xx of its container, and
    a server that is not up yet are asked again, up to ATTEMPTS times, ever more slowly.
    """

    def __init__(
        self, transport: Transport, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._transport = transport
        self._retrying = Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=5),
            retry=retry_if_exception(_may_pass),
            sleep=sleep,
            reraise=True,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._transport.close()

    def predict(self, picture: Picture, *, accept: str = JSON, **options: Any) -> Reply:
        """The server's answer as it came; see `send`."""
        return self.send(Payload.of(picture, accept, **options))

    def detect(self, picture: Picture, **options: Any) -> list[Prediction]:
        """What was found: one Prediction an image, of which an array may hold several.

        Raises:
            PredictionError: also if the server could not use one of the images.
        """
        return read_predictions(self.predict(picture, **options).json())

    def send(self, payload: Payload) -> Reply:
        """The server's answer to any request.

        Raises:
            PredictionError: the server refuses it, or breaks off.
            UnreachableError: there is no server.
        """
        return self._retrying(self._transport.send, payload)


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, PredictionError):
        return error.may_pass
    return isinstance(error, UnreachableError)
