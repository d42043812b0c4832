"""Ray Serve: serve a model on more than one machine, or in SageMaker's Ray container.

The import path of an application is `d2serve.servers.ray:build`; docs/ray.md has examples.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Ray's own types are not available where Ray is not installed.
    Application = Any


def build(args: dict[str, Any]) -> "Application":
    """Build the Ray Serve application of one model.

    The archive is fetched and verified, and the model has processed test images when this
    function returns: Ray's `/-/healthz` responds with 503 until then, and for ever if it fails.

    Args:
        args: `archive` and further keys; see `ApplicationOptions`.

    Raises:
        SettingsError: a key is unknown, or its value is not valid.
        ArchiveError: the archive is missing, damaged or malicious.
        RuntimeError: the model cannot process an image.
    """
    from d2serve.servers.ray.application import build_application
    from d2serve.servers.ray.options import ApplicationOptions

    return build_application(ApplicationOptions.from_args(args))
