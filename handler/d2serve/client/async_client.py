"""`Client` for coroutines."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any

from d2serve.client.client import located, raised
from d2serve.client.connect import Target, connect_async
from d2serve.client.images import find_images
from d2serve.client.progress import progress_bar
from d2serve.client.requests import (
    check_concurrency,
    class_names_of,
    class_names_request,
    each_image,
    payload_of,
    request_options,
)
from d2serve.client.results import needs_class_count, read_entries, results_of
from d2serve.client.sender import TIMEOUT_S, AsyncSender
from d2serve.client.transport import AsyncTransport, ImageInput
from d2serve.detections import Detections
from d2serve.errors import PredictionError


class AsyncClient:
    """A model on a server or a SageMaker endpoint, for coroutines.

    Cancelling a call closes its connections, so that a server drops its requests. Calls of an
    endpoint run in threads.

    Args:
        target, model, token, ca, timeout_s, region, target_model, concurrency: see `Client`.
        sleep: awaited with the seconds to pause between attempts.

    Raises:
        CommandError, AwsError: see `Client`.

    Examples:
        >>> import d2serve
        >>> async def detect(path):
        ...     async with d2serve.AsyncClient("http://127.0.0.1:8080") as client:
        ...         return await client.predict(path, score_threshold=0.5)
    """

    def __init__(
        self,
        target: str | AsyncTransport,
        *,
        model: str | None = None,
        token: str | None = None,
        ca: Path | None = None,
        timeout_s: float | None = None,
        region: str | None = None,
        target_model: str | None = None,
        concurrency: int = 4,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._concurrency = check_concurrency(concurrency)
        if isinstance(target, str):
            chosen = Target(target, model, token, ca, timeout_s, region, target_model)
            target = connect_async(chosen)
        self._sender = AsyncSender(target, timeout_s=timeout_s or TIMEOUT_S, sleep=sleep)
        self._class_names: tuple[str, ...] | None = None

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._sender.close()

    async def class_names(self) -> tuple[str, ...]:
        """Names of the instance classes, in the order of the class indices; see `Client`."""
        if self._class_names is None:
            reply = await self._sender.send(class_names_request())
            self._class_names = class_names_of(reply.json())
        return self._class_names

    async def predict(
        self, images: ImageInput | Iterable[ImageInput], **options: Any
    ) -> list[Detections]:
        """Detect instances in one or many images; see `Client.predict`."""
        return [raised(result) async for result in self.predict_each(images, **options)]

    async def predict_each(
        self, images: ImageInput | Iterable[ImageInput], **options: Any
    ) -> AsyncIterator[Detections | PredictionError]:
        """Detect instances in a stream of images; see `Client.predict_each`."""
        positions = count()
        async for results in self._groups(each_image(images), options):
            for result in results:
                yield located(result, next(positions))

    async def predict_folder(
        self, folder: str | Path, *, progress: bool = True, **options: Any
    ) -> AsyncIterator[tuple[Path, Detections | PredictionError]]:
        """Detect instances in the image files of a folder; see `Client.predict_folder`."""
        files = find_images(Path(folder))
        position = 0
        with progress_bar(len(files), enabled=progress) as advance:
            async for results in self._groups(files, options):
                for result in results:
                    yield files[position], result
                position += 1
                advance()

    async def _groups(
        self, images: Iterable[ImageInput], options: dict[str, Any]
    ) -> AsyncIterator[list[Detections | PredictionError]]:
        """The results of each request, in order; `concurrency` requests run at a time."""
        chosen = request_options(options)
        pending: deque[asyncio.Task[list[Detections | PredictionError]]] = deque()
        try:
            for image in images:
                pending.append(asyncio.create_task(self._results(image, chosen)))
                if len(pending) >= self._concurrency:
                    yield await pending.popleft()
            while pending:
                yield await pending.popleft()
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def _results(
        self, image: ImageInput, options: dict[str, Any]
    ) -> list[Detections | PredictionError]:
        # Files are read, and masks are decoded, without blocking the event loop.
        try:
            payload = await asyncio.to_thread(payload_of, image, options)
            entries = read_entries(await self._sender.send(payload))
            needs_count = any(map(needs_class_count, entries))
            class_count = len(await self.class_names()) if needs_count else 0
            return await asyncio.to_thread(results_of, entries, class_count)
        except PredictionError as error:
            return [error]
