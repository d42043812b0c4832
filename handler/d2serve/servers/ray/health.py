"""The health check of a replica."""

from typing import Protocol

from d2serve.errors import ServerError


class CheckedPipeline(Protocol):
    """The part of a pipeline that the health check uses."""

    @property
    def is_healthy(self) -> bool:
        """True until the device is lost."""
        ...

    def forward_seconds(self) -> float:
        """Time in seconds that the current forward pass has taken so far."""
        ...


def check_pipeline(pipeline: CheckedPipeline, forward_timeout_s: float) -> None:
    """Check that a pipeline can process requests.

    Raises:
        ServerError: the device is lost, the inference thread has ended, or a forward pass has taken
            longer than `forward_timeout_s` seconds.
    """
    if not pipeline.is_healthy:
        raise ServerError("the device is lost, or the inference thread has ended")
    elapsed_s = pipeline.forward_seconds()
    if elapsed_s > forward_timeout_s:
        raise ServerError(
            f"a forward pass has not ended after {elapsed_s:.0f} s; forward_timeout_s is "
            f"{forward_timeout_s:g}"
        )
