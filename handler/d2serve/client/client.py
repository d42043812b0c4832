"""A model on a server or a SageMaker endpoint, with the calls of `d2serve.Model`."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from d2serve.client.connect import Target, connect
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
from d2serve.client.sender import TIMEOUT_S, Sender
from d2serve.client.transport import ImageInput, Transport
from d2serve.detections import Detections
from d2serve.errors import PredictionError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Client:
    """A model on a server or a SageMaker endpoint.

    Requests are retried after an overload and while a server starts, see `Sender`. Calls from
    several threads run at the same time. `close`, or the end of a `with` block, closes the
    connections.

    Args:
        target: URL of a server, such as `http://127.0.0.1:8080`, or of one of its prediction
            routes, or the name of a SageMaker endpoint, which needs the extra `aws`; or a transport
            of `d2serve.client`, and the arguments up to `target_model` have no effect.
        model: name of the model, on a server of several; by default the first one.
        token: bearer token of a server that requires one.
        ca: PEM file of certificates to trust instead of the system's.
        timeout_s: seconds to wait for a response; no further attempt begins later. By default 120,
            and 900 for an asynchronous endpoint, which may have to start first.
        region: AWS region of the endpoint; by default that of the AWS configuration.
        target_model: `NAME.tar.gz` of a multi-model endpoint.
        concurrency: maximum number of requests at a time of one call.
        sleep: called with the seconds to pause between attempts.

    Raises:
        CommandError: the URL or the token is invalid, or boto3 is missing.
        AwsError: the endpoint does not exist, or AWS cannot be reached.

    Examples:
        >>> import d2serve
        >>> with d2serve.Client("http://127.0.0.1:8080") as client:  # doctest: +SKIP
        ...     [detections] = client.predict("image.jpg", score_threshold=0.5)
        >>> detections.class_names  # doctest: +SKIP
        ('horse', 'person')
    """

    def __init__(
        self,
        target: str | Transport,
        *,
        model: str | None = None,
        token: str | None = None,
        ca: Path | None = None,
        timeout_s: float | None = None,
        region: str | None = None,
        target_model: str | None = None,
        concurrency: int = 4,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._concurrency = check_concurrency(concurrency)
        if isinstance(target, str):
            target = connect(Target(target, model, token, ca, timeout_s, region, target_model))
        self._sender = Sender(target, timeout_s=timeout_s or TIMEOUT_S, sleep=sleep)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._sender.close()

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the instance classes, in the order of the class indices.

        The first access sends a request.

        Raises:
            PredictionError, UnreachableError: see `predict`.
        """
        return class_names_of(self._sender.send(class_names_request()).json())

    def predict(
        self, images: ImageInput | Iterable[ImageInput], **options: Any
    ) -> list[Detections]:
        """Detect instances in one or many images.

        Args:
            images: one image or an iterable of images, each of them the path or the content of a
                file, a `PIL.Image.Image`, or an array as `Model.predict` takes it; an array with a
                leading N counts as N images.
            options: `score_threshold`, `max_detections`, `classes`, `input_layout`, `input_color`
                and `input_range` of `Model.predict`, and `masks`: `rle` or `polygon`, which fills
                holes, or `none` for responses without masks.

        Returns:
            The detections of each image, in the order of the images.

        Raises:
            PredictionError: a file cannot be read, the server returned an error for one of the
                images, or the connection failed midway.
            UnreachableError: the server or endpoint does not exist.
            TypeError: an image or option is of no known kind.
        """
        return [raised(result) for result in self.predict_each(images, **options)]

    def predict_each(
        self, images: ImageInput | Iterable[ImageInput], **options: Any
    ) -> Iterator[Detections | PredictionError]:
        """Detect instances in a stream of images; a failed image does not stop the others.

        Results come in the order of the images, as soon as they exist. At most a few images more
        than `concurrency` are read ahead, so that the iterable may be larger than the memory.

        Args:
            images: see `predict`.
            options: see `predict`.

        Yields:
            The detections of an image, or the error that the server returned in their place.

        Raises:
            UnreachableError, TypeError: see `predict`.
        """
        positions = count()
        for results in self._groups(each_image(images), options):
            yield from (located(result, next(positions)) for result in results)

    def predict_folder(
        self, folder: str | Path, *, progress: bool = True, **options: Any
    ) -> Iterator[tuple[Path, Detections | PredictionError]]:
        """Detect instances in the image files of a folder and its subfolders, sorted by path.

        Args:
            folder: the folder, or one file.
            progress: whether to show a progress bar with the rate and the time left on stderr.
            options: see `predict`.

        Yields:
            The path of a file, and its detections or the error in their place; an NPY file of
            several images comes several times.

        Raises:
            CommandError: the folder does not exist or contains no image.
            UnreachableError, TypeError: see `predict`.
        """
        files = find_images(Path(folder))
        groups = self._groups(files, options)
        with progress_bar(len(files), enabled=progress) as advance:
            for file, results in zip(files, groups, strict=True):
                yield from ((file, result) for result in results)
                advance()

    def _groups(
        self, images: Iterable[ImageInput], options: dict[str, Any]
    ) -> Iterator[list[Detections | PredictionError]]:
        """The results of each request, whose image may be an array of several."""
        chosen = request_options(options)
        function = partial(self._results, options=chosen)
        yield from ordered(function, images, self._concurrency)

    def _results(
        self, image: ImageInput, options: dict[str, Any]
    ) -> list[Detections | PredictionError]:
        try:
            entries = read_entries(self._sender.send(payload_of(image, options)))
            class_count = len(self.class_names) if any(map(needs_class_count, entries)) else 0
            return results_of(entries, class_count)
        except PredictionError as error:
            return [error]


def ordered(
    function: Callable[[Item], Result], items: Iterable[Item], concurrency: int
) -> Iterator[Result]:
    """Map in threads; results come in order, and items are read only as far ahead as needed."""
    pool = ThreadPoolExecutor(concurrency)
    pending: deque[Future[Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > concurrency:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def located(result: Detections | PredictionError, position: int) -> Detections | PredictionError:
    """Add the index of the image to an error."""
    if isinstance(result, PredictionError):
        result.position = position
    return result


def raised(result: Detections | PredictionError) -> Detections:
    """Return detections, and raise an error."""
    if isinstance(result, PredictionError):
        raise result
    return result
