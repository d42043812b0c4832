"""Limits on all images of one request together."""

import threading

from d2serve.errors import RequestError, too_large
from d2serve.settings import Settings


class RequestBudget:
    """The images and pixels that one request may still use; safe for several threads.

    When a limit is exceeded, `error` is set, and all later calls raise the same error: a request
    over its limits fails as a whole, whatever its other images are.

    Args:
        settings: `max_images_per_request` and `max_request_pixels`.

    Attributes:
        error: the error of the request, 413; None while it is within its limits.

    Examples:
        >>> budget = RequestBudget(Settings(max_images_per_request=2))
        >>> budget.take_images(3)
        Traceback (most recent call last):
            ...
        d2serve.errors.RequestError: the request has at least 3 images, the limit is 2
        >>> budget.error.status
        413
    """

    def __init__(self, settings: Settings) -> None:
        self.error: RequestError | None = None
        self._settings = settings
        self._images = 0
        self._pixels = 0
        self._lock = threading.Lock()

    def take_images(self, count: int) -> None:
        """Take `count` images.

        Raises:
            RequestError: 413, the request has too many images or pixels.
        """
        limit = self._settings.max_images_per_request
        with self._lock:
            self._images += count
            self._check("max_images_per_request", self._images, limit, "images")

    def take_pixels(self, count: int) -> None:
        """Take `count` pixels, before they are decoded; those of damaged images count too.

        Raises:
            RequestError: 413, the request has too many images or pixels.
        """
        limit = self._settings.max_request_pixels
        with self._lock:
            self._pixels += count
            self._check("max_request_pixels", self._pixels, limit, "pixels in total")

    def _check(self, setting: str, taken: int, limit: int, unit: str) -> None:
        if self.error is None and taken > limit:
            self.error = too_large(
                f"the request has at least {taken} {unit}, the limit is {limit}",
                f"send fewer per request, or raise {setting} in model-config.yaml",
            )
        if self.error is not None:
            raise self.error
