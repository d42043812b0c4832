"""A fake of SageMaker's runtime in front of a container."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

MODEL_ERROR = 424


@dataclass(frozen=True)
class Received:
    """A request as the container receives it."""

    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Response:
    """The container's response, or SageMaker's own error if `error_type` is set."""

    status: int = 200
    body: bytes = b"{}"
    content_type: str = "application/json"
    error_type: str = ""


Container = Callable[[Received], Response]


class Runtime(ThreadingHTTPServer):
    """Serves InvokeEndpoint and InvokeEndpointAsync on loopback.

    Args:
        container: returns the response to a request.
        s3: client of the S3 that holds asynchronous requests and responses.
        output: bucket for the responses.
    """

    daemon_threads = True

    def __init__(self, container: Container, s3: Any = None, output: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.container = container
        self.s3 = s3
        self.output = output
        # Without a path for failures, an endpoint does not return their location.
        self.stores_failures = True
        self.received: list[Received] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def invoke(self, request: Received) -> Response:
        self.received.append(request)
        return self.container(request)


class _Handler(BaseHTTPRequestHandler):
    server: Runtime

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        if self.path.endswith("/async-invocations"):
            self._later(headers)
        else:
            self._now(self.server.invoke(Received(body, headers)))

    def _now(self, response: Response) -> None:
        if response.error_type:
            self._send(response.status, response.body, {"x-amzn-ErrorType": response.error_type})
        elif response.status == 200:
            self._send(200, response.body, {"Content-Type": response.content_type})
        else:
            text = response.body.decode()
            body = {
                "Message": f"Received client error ({response.status}) from primary with message",
                "OriginalStatusCode": response.status,
                "OriginalMessage": text,
            }
            kind = {"x-amzn-ErrorType": "ModelError"}
            self._send(MODEL_ERROR, json.dumps(body).encode(), kind)

    def _later(self, headers: Mapping[str, str]) -> None:
        location = urlsplit(headers["x-amzn-sagemaker-inputlocation"])
        stored = self.server.s3.get_object(Bucket=location.netloc, Key=location.path.lstrip("/"))
        response = self.server.invoke(Received(stored["Body"].read(), headers))
        keys = {"output": f"{uuid4()}.out", "failure": f"{uuid4()}.error"}
        key = keys["output"] if response.status == 200 else keys["failure"]
        self.server.s3.put_object(
            Bucket=self.server.output,
            Key=key,
            Body=response.body,
            ContentType=response.content_type,
        )
        locations = {
            f"X-Amzn-SageMaker-{name}Location": f"s3://{self.server.output}/{key}"
            for name, key in zip(("Output", "Failure"), keys.values(), strict=True)
            if name == "Output" or self.server.stores_failures
        }
        self._send(202, b'{"InferenceId": "1"}', locations)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output short."""
