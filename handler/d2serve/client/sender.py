"""Send requests through any transport, with retries."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from d2serve.client.transport import JSON, AsyncTransport, ImageInput, Payload, Reply, Transport
from d2serve.errors import PredictionError, UnreachableError

ATTEMPTS = 6
TIMEOUT_S = 120.0
_growing = wait_random_exponential(multiplier=0.2, max=5)


class Sender:
    """Sends requests to one server or endpoint.

    A request is sent up to ATTEMPTS times, with growing pauses or those of the header Retry-After,
    after a 429 or 503, after a 5xx of a SageMaker container, and while the server does not accept
    connections yet.

    Args:
        transport: connection to the server or endpoint; closed together with the sender.
        timeout_s: seconds after the first attempt within which the last one begins.
        sleep: called with the seconds to pause between attempts.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        timeout_s: float = TIMEOUT_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = transport
        self._retrying = Retrying(sleep=sleep, **_policy(timeout_s))

    def __enter__(self) -> "Sender":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

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


class AsyncSender:
    """A `Sender` for coroutines.

    Args:
        transport: connection to the server or endpoint; closed together with the sender.
        timeout_s: see `Sender`.
        sleep: awaited with the seconds to pause between attempts.
    """

    def __init__(
        self,
        transport: AsyncTransport,
        *,
        timeout_s: float = TIMEOUT_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._transport = transport
        self._retrying = AsyncRetrying(sleep=sleep, **_policy(timeout_s))

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def send(self, payload: Payload) -> Reply:
        """Send a request; see `Sender.send`."""
        reply: Reply = await self._retrying(self._transport.send, payload)
        return reply


def _policy(timeout_s: float) -> dict[str, Any]:
    return {
        "stop": stop_after_attempt(ATTEMPTS) | stop_before_delay(timeout_s),
        "wait": _pause_s,
        "retry": retry_if_exception(_is_transient),
        "reraise": True,
    }


def _pause_s(state: RetryCallState) -> float:
    """Seconds until the next attempt, not less than the server demands."""
    error = state.outcome.exception() if state.outcome else None
    demanded = error.retry_after_s if isinstance(error, PredictionError) else 0.0
    return max(_growing(state), demanded)


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, PredictionError):
        return error.is_transient
    return isinstance(error, UnreachableError)
