"""A stand-in for SageMaker's runtime: in front of whatever answers, as SageMaker puts it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

MODEL_ERROR = 424


@dataclass(frozen=True)
class Asked:
    """What the container is asked."""

    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Answered:
    """What the container answers; a `refused_as` is SageMaker's own error in its place."""

    status: int = 200
    body: bytes = b"{}"
    content_type: str = "application/json"
    refused_as: str = ""


Container = Callable[[Asked], Answered]


class Runtime(ThreadingHTTPServer):
    """Serves InvokeEndpoint and InvokeEndpointAsync on loopback.

    Args:
        container: what is behind the endpoint.
        s3: a client of the S3 that asynchronous requests come from and answers go to.
        output: the bucket of the answers.
    """

    daemon_threads = True

    def __init__(self, container: Container, s3: Any = None, output: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.container = container
        self.s3 = s3
        self.output = output
        # An endpoint without a path for failures says nothing of where they are.
        self.keeps_failures = True
        self.asked: list[Asked] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def ask(self, asked: Asked) -> Answered:
        self.asked.append(asked)
        return self.container(asked)


class _Handler(BaseHTTPRequestHandler):
    server: Runtime

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        if self.path.endswith("/async-invocations"):
            self._later(headers)
        else:
            self._now(self.server.ask(Asked(body, headers)))

    def _now(self, answer: Answered) -> None:
        if answer.refused_as:
            self._send(answer.status, answer.body, {"x-amzn-ErrorType": answer.refused_as})
        elif answer.status == 200:
            self._send(200, answer.body, {"Content-Type": answer.content_type})
        else:
            text = answer.body.decode()
            told = {
                "Message": f"Received client error ({answer.status}) from primary with message",
                "OriginalStatusCode": answer.status,
                "OriginalMessage": text,
            }
            kind = {"x-amzn-ErrorType": "ModelError"}
            self._send(MODEL_ERROR, json.dumps(told).encode(), kind)

    def _later(self, headers: Mapping[str, str]) -> None:
        place = urlsplit(headers["x-amzn-sagemaker-inputlocation"])
        found = self.server.s3.get_object(Bucket=place.netloc, Key=place.path.lstrip("/"))
        answer = self.server.ask(Asked(found["Body"].read(), headers))
        keys = {"output": f"{uuid4()}.out", "failure": f"{uuid4()}.error"}
        kept = keys["output"] if answer.status == 200 else keys["failure"]
        self.server.s3.put_object(
            Bucket=self.server.output, Key=kept, Body=answer.body, ContentType=answer.content_type
        )
        locations = {
            f"X-Amzn-SageMaker-{name}Location": f"s3://{self.server.output}/{key}"
            for name, key in zip(("Output", "Failure"), keys.values(), strict=True)
            if name == "Output" or self.server.keeps_failures
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
        """Tests say what went wrong themselves."""
