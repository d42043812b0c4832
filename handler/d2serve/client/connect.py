"""Choose the transport to a server or a SageMaker endpoint."""

from dataclasses import dataclass, field
from pathlib import Path

from d2serve.client.http import AsyncHttpTransport, HttpTransport, route_url
from d2serve.client.transport import AsyncTransport, ThreadTransport, Transport
from d2serve.errors import CommandError


@dataclass(frozen=True)
class Target:
    """A model that a client calls; see `Client` for the fields."""

    name: str
    model: str | None = None
    token: str | None = field(default=None, repr=False)
    ca: Path | None = None
    timeout_s: float = 120
    region: str | None = None
    target_model: str | None = None

    @property
    def is_url(self) -> bool:
        """True for the URL of a server, False for the name of an endpoint."""
        return "://" in self.name


def connect(target: Target) -> Transport:
    """Return the transport to a target.

    Raises:
        CommandError: the target is invalid, or boto3 is missing.
        AwsError: the endpoint does not exist, or AWS cannot be reached.
    """
    if not target.is_url:
        return _endpoint(target)
    _check_server(target)
    url = route_url(target.name, target.model)
    return HttpTransport(url, timeout_s=target.timeout_s, token=target.token, ca=target.ca)


def connect_async(target: Target) -> AsyncTransport:
    """Return the transport to a target for coroutines; raises as `connect` does."""
    if not target.is_url:
        return ThreadTransport(_endpoint(target))
    _check_server(target)
    url = route_url(target.name, target.model)
    return AsyncHttpTransport(url, timeout_s=target.timeout_s, token=target.token, ca=target.ca)


def _endpoint(target: Target) -> Transport:
    for name in ("model", "token", "ca"):
        if getattr(target, name) is not None:
            raise CommandError(
                f"{name} belongs to the URL of a server, and {target.name!r} is an endpoint's "
                "name; a multi-model endpoint's model is target_model"
            )
    try:
        import boto3

        from d2serve.client.sagemaker import endpoint_transport
    except ModuleNotFoundError as error:
        raise CommandError(
            f"{error.name} is missing, and {target.name!r} is an endpoint's name: run "
            "`pip install 'd2serve[aws]'`, or give a URL such as http://127.0.0.1:8080"
        ) from error
    session = boto3.Session(region_name=target.region)
    return endpoint_transport(
        target.name, session, target_model=target.target_model, timeout_s=target.timeout_s
    )


def _check_server(target: Target) -> None:
    for name in ("region", "target_model"):
        if getattr(target, name) is not None:
            raise CommandError(
                f"{name} belongs to a SageMaker endpoint, and {target.name} is a URL"
            )
