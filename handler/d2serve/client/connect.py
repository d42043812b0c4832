"""Choose the transport to a server or a SageMaker endpoint."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from d2serve.client.http import AsyncHttpTransport, HttpTransport
from d2serve.client.sender import TIMEOUT_S
from d2serve.client.transport import AsyncTransport, ThreadTransport, Transport
from d2serve.client.urls import route_url
from d2serve.errors import CommandError

# An asynchronous endpoint may have to start first.
ENDPOINT_TIMEOUT_S = 900.0
ENDPOINT_NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")


@dataclass(frozen=True)
class Target:
    """A model that a client calls; see `Client` for the fields."""

    name: str
    model: str | None = None
    token: str | None = field(default=None, repr=False)
    ca: Path | None = None
    timeout_s: float | None = None
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
    return HttpTransport(_server_url(target), **_server_options(target))


def connect_async(target: Target) -> AsyncTransport:
    """Return the transport to a target for coroutines; raises as `connect` does."""
    if not target.is_url:
        return ThreadTransport(_endpoint(target))
    return AsyncHttpTransport(_server_url(target), **_server_options(target))


def _endpoint(target: Target) -> Transport:
    if not ENDPOINT_NAME.fullmatch(target.name):
        raise CommandError(
            f"target is {target.name!r}; expected a URL such as http://127.0.0.1:8080, or the name "
            "of a SageMaker endpoint"
        )
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
        target.name,
        session,
        target_model=target.target_model,
        timeout_s=ENDPOINT_TIMEOUT_S if target.timeout_s is None else target.timeout_s,
    )


def _server_options(target: Target) -> dict[str, Any]:
    timeout_s = TIMEOUT_S if target.timeout_s is None else target.timeout_s
    return {"timeout_s": timeout_s, "token": target.token, "ca": target.ca}


def _server_url(target: Target) -> str:
    for name in ("region", "target_model"):
        if getattr(target, name) is not None:
            raise CommandError(
                f"{name} belongs to a SageMaker endpoint, and {target.name} is a URL"
            )
    return route_url(target.name, target.model)
