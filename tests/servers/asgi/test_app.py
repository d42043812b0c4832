"""The application's routes, access rules and errors, with a fake pipeline."""

import asyncio
import gc
import json
import logging
import weakref
from typing import Any

import httpx
import pytest

from d2serve.errors import DeviceLostError
from d2serve.messages import NO_STAGES, HttpRequest
from d2serve.servers.asgi.app import create_app
from d2serve.servers.asgi.frame import Access
from d2serve.servers.asgi.metrics import ServerMetrics
from d2serve.servers.asgi.models import Models, State
from d2serve.serving.log_context import RequestIdFormatter
from d2serve.serving.requests import HttpResponse
from d2serve.serving.telemetry import StageTimes
from d2serve.settings import Settings
from tests.servers.asgi.fakes import FakePipeline, send, send_all

PREDICTIONS = (
    "/invocations",
    "/models/shapes/invoke",
    "/predictions/shapes",
    "/predictions/shapes/1.0",
    "/v1/models/shapes:predict",
    "/v2/models/shapes/infer",
    "/v2/models/shapes/versions/1/infer",
)
DOCUMENTS = {
    "/ping": {"status": "Healthy"},
    "/v2/health/live": {"live": True},
    "/v2/health/ready": {"ready": True},
    "/v2/models/shapes/ready": {"name": "shapes", "ready": True},
    "/v2/models/shapes/versions/1/ready": {"name": "shapes", "ready": True},
    "/v1/models": {"models": ["shapes"]},
    "/v1/models/shapes": {"name": "shapes", "ready": True},
}


@pytest.mark.parametrize("route", PREDICTIONS)
def test_every_prediction_route_reaches_the_pipeline(route: str) -> None:
    response = send(create_app({"shapes": FakePipeline()}), "POST", route, content=b"image")
    assert response.status_code == 200
    assert response.json()["parts"] == [["", "image"]]
    assert response.json()["is_open_inference"] is route.startswith("/v2")
    assert response.headers["x-extra"] == "1"


@pytest.mark.parametrize("route", DOCUMENTS)
def test_documents(route: str) -> None:
    app = create_app({"shapes": FakePipeline()})
    assert send(app, "GET", route).json() == DOCUMENTS[route]
    head = send(app, "HEAD", route)
    assert (head.status_code, head.content) == (200, b"")


def test_open_inference_metadata() -> None:
    app = create_app({"shapes": FakePipeline()})
    assert send(app, "GET", "/v2").json()["name"] == "d2serve"
    for route in ("/v2/models/shapes", "/v2/models/shapes/versions/1"):
        assert send(app, "GET", route).json()["inputs"]
    assert send(app, "GET", "/v2/models/shapes/config").json()["backend"]


@pytest.mark.parametrize(
    "route",
    [
        "/predictions/other",
        "/models/other/invoke",
        "/predictions/shapes/2.0",
        "/v1/models/other:predict",
        "/nothing",
        "/ping/",
        "/playground/nothing.js",
        "/playground/../app.py",
    ],
)
def test_an_unknown_route_or_model_is_404(route: str) -> None:
    method = "GET" if route.startswith(("/ping/", "/playground/")) else "POST"
    response = send(create_app({"shapes": FakePipeline()}), method, route)
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("route", ["/v2/models/other", "/v2/models/shapes/versions/7", "/v2/x"])
def test_errors_of_the_open_inference_protocol_are_a_text(route: str) -> None:
    response = send(create_app({"shapes": FakePipeline()}), "GET", route)
    assert response.status_code == 404
    assert isinstance(response.json()["error"], str)


@pytest.mark.parametrize(
    ("method", "route", "allow"),
    [
        ("GET", "/invocations", "POST, PUT"),
        ("POST", "/ping", "GET, HEAD"),
        ("GET", "/v1/models/shapes:predict", "POST"),
        ("OPTIONS", "/invocations", "POST, PUT"),
        ("DELETE", "/v2/models/shapes", "GET, HEAD"),
    ],
)
def test_another_method_is_405_with_allow(method: str, route: str, allow: str) -> None:
    response = send(create_app({"shapes": FakePipeline()}), method, route)
    assert (response.status_code, response.headers["allow"]) == (405, allow)


def test_the_first_model_is_that_of_invocations() -> None:
    one, two = FakePipeline(), FakePipeline()
    app = create_app({"one": one, "two": two})
    send(app, "POST", "/invocations", content=b"a")
    send(app, "POST", "/predictions/two", content=b"b")
    assert [pipeline.requests[0].parts[0].body for pipeline in (one, two)] == [b"a", b"b"]


def test_two_applications_share_nothing() -> None:
    first, second = create_app({"a": FakePipeline()}), create_app({"b": FakePipeline()})
    assert send(first, "GET", "/v1/models").json() == {"models": ["a"]}
    assert send(second, "GET", "/nothing").status_code == 404
    assert b'Status="404"' not in send(first, "GET", "/metrics").content


@pytest.mark.parametrize("state", [State.LOADING, State.STOPPING, State.FAILED])
def test_predictions_and_readiness_wait_for_the_models(state: State) -> None:
    models = Models(["shapes"])
    models.state = state
    app = create_app(models)
    for method, route in (
        ("POST", "/invocations"),
        ("POST", "/v2/models/shapes/infer"),
        ("GET", "/ping"),
        ("GET", "/v2/health/ready"),
        ("GET", "/v2/models/shapes/ready"),
        ("GET", "/v1/models/shapes"),
    ):
        response = send(app, method, route)
        assert (response.status_code, int(response.headers["retry-after"]) > 0) == (503, True)
        assert state.value in response.text
    assert send(app, "GET", "/v2/health/live").status_code == 200
    assert send(app, "POST", "/predictions/other").status_code == 404


def test_a_stopping_server_does_not_become_ready_again() -> None:
    models = Models(["shapes"])
    models.state = State.STOPPING
    models.set_ready({"shapes": FakePipeline()})
    assert send(create_app(models), "GET", "/ping").status_code == 503


def test_connections_close_when_the_server_stops() -> None:
    models = Models.ready({"shapes": FakePipeline()})
    app = create_app(models)
    assert "connection" not in send(app, "GET", "/v2").headers
    models.state = State.STOPPING
    assert send(app, "GET", "/v2").headers["connection"] == "close"


def test_a_token_protects_all_but_health_checks() -> None:
    app = create_app({"shapes": FakePipeline()}, access=Access("secret-token"))
    for route in ("/ping", "/v2/health/live", "/v2/health/ready"):
        assert send(app, "GET", route).status_code == 200
    for method, route in (("POST", "/invocations"), ("GET", "/metrics"), ("GET", "/nothing")):
        response = send(app, method, route)
        assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
        assert response.json()["error"]["code"] == "unauthorized"
    for given in ("Bearer wrong", "Bearer", "Basic secret-token", "secret-token", "Bearer \xe9"):
        headers = {"authorization": given.encode("latin-1")}
        assert send(app, "POST", "/invocations", headers=headers).status_code == 401
    for given in ("Bearer secret-token", "bearer  secret-token "):
        allowed = send(app, "POST", "/invocations", headers={"authorization": given})
        assert allowed.status_code == 200


def test_too_many_requests_are_503_and_health_checks_pass() -> None:
    pipeline = FakePipeline(respond=None)
    app = create_app({"shapes": pipeline}, access=Access(max_requests=2))

    async def run() -> list[int]:
        statuses: list[int] = []

        async def request(method: str, path: str) -> None:
            statuses.append(await status_of(app, method, path))

        held = [asyncio.create_task(request("POST", "/invocations")) for _ in range(2)]
        while len(pipeline.futures) < 2:
            await asyncio.sleep(0)
        await request("POST", "/invocations")
        await request("GET", "/ping")
        for future in pipeline.futures:
            future.set_result(HttpResponse(200, "text/plain", b""))
        await asyncio.gather(*held)
        await request("GET", "/ping")
        return statuses

    assert asyncio.run(run()) == [503, 200, 200, 200, 200]


async def status_of(app: Any, method: str, path: str) -> int:
    """The status of a response, without a client."""
    statuses: list[int] = []
    is_sent = False

    async def receive() -> dict[str, Any]:
        nonlocal is_sent
        if is_sent:
            await asyncio.Event().wait()
        is_sent = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send_message(message: Any) -> None:
        statuses.extend([message["status"]] if "status" in message else [])

    scope = {"type": "http", "http_version": "1.1", "method": method, "path": path}
    await app({**scope, "query_string": b"", "headers": []}, receive, send_message)
    return statuses[0]


def test_the_request_id_of_the_client_is_used_if_it_is_safe() -> None:
    app = create_app({"shapes": FakePipeline()})
    for name in ("X-Request-Id", "X-Amzn-RequestId"):
        response = send(app, "POST", "/invocations", headers={name: "order-42"})
        assert response.headers["x-request-id"] == response.json()["id"] == "order-42"
    for unsafe in ("", "two words", "x" * 129, "[fake] line", "\xe9"):
        headers = {"x-request-id": unsafe.encode("latin-1")}
        response = send(app, "POST", "/invocations", headers=headers)
        assert response.headers["x-request-id"] == response.json()["id"] != unsafe
        assert response.json()["id"].isalnum()


def test_own_errors_are_logged_with_the_id_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    metrics = ServerMetrics()
    app = create_app({"shapes": FakePipeline()}, metrics=metrics)
    send(app, "POST", "/nothing/secret", headers={"x-request-id": "order-42"}, content=b"12345")
    [line] = [json.loads(record.message) for record in caplog.records if "order" in record.message]
    assert line["event"] == "request"
    assert (line["id"], line["status"], line["code"]) == ("order-42", 404, "not_found")
    assert (line["bytes_in"], line["route"]) == (5, "none")
    assert "secret" not in str(line)
    text = metrics.render().decode()
    assert 'd2serve_server_responses_total{Code="not_found",Status="404"} 1.0' in text


def test_log_lines_of_own_errors_are_json_without_a_prefix() -> None:
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler, log = Lines(), logging.getLogger("d2serve.servers.asgi.responses")
    handler.setFormatter(RequestIdFormatter(logging.Formatter()))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        send(create_app({"a": FakePipeline()}), "GET", "/no", headers={"x-request-id": "order-42"})
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    [line] = lines
    assert json.loads(line)["id"] == "order-42"


def test_own_errors_are_not_logged_without_the_request_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    app = create_app({"shapes": FakePipeline(settings=Settings(request_log=False))})
    assert send(app, "GET", "/nothing").status_code == 404
    closed = create_app(
        {"shapes": FakePipeline(settings=Settings(request_log=False))}, access=Access("secret")
    )
    assert send(closed, "POST", "/invocations").status_code == 401
    assert not [record for record in caplog.records if "event" in record.message]


@pytest.mark.parametrize("access", [Access(), Access("secret-token")])
def test_own_errors_have_the_stage_times(access: Access) -> None:
    app = create_app({"shapes": FakePipeline()}, access=access)
    response = send(app, "POST", "/predictions/other")
    assert response.status_code in (401, 404)
    assert response.headers["server-timing"] == NO_STAGES == StageTimes().server_timing()


def test_a_request_is_rejected_before_its_body_is_read_while_the_queue_is_full() -> None:
    app, read = create_app({"shapes": FakePipeline(is_full=True)}), []

    async def chunks() -> Any:
        read.append(1)
        yield b"x"

    response = send(app, "POST", "/invocations", content=chunks())
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    assert response.headers["connection"] == "close"
    assert read == []


def test_a_body_counts_as_far_as_it_has_arrived() -> None:
    """A client cannot reserve memory by a Content-Length."""
    app = create_app({"shapes": FakePipeline(settings=Settings(max_queued_bytes=10))})

    async def run() -> httpx.Response:
        begun = asyncio.Event()

        async def chunks() -> Any:
            yield b"x"
            begun.set()
            await asyncio.Event().wait()

        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            headers = {"Content-Length": "9"}
            slow = client.post("/invocations", content=chunks(), headers=headers)
            task = asyncio.create_task(slow)
            await begun.wait()
            response = await client.post("/invocations", content=b"x" * 9)
            task.cancel()
            return response

    assert asyncio.run(run()).status_code == 200


@pytest.mark.parametrize("is_declared", [True, False])
def test_all_bodies_together_have_a_limit(is_declared: bool) -> None:
    pipeline = FakePipeline(respond=None, settings=Settings(max_queued_bytes=10))
    app = create_app({"shapes": pipeline})

    async def run() -> tuple[int, httpx.Response, int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:

            async def post(size: int) -> httpx.Response:
                async def chunks() -> Any:
                    yield b"x" * (size - 1)
                    yield b"x"

                content = b"x" * size if is_declared else chunks()
                return await client.post("/invocations", content=content)

            async def post_held(size: int) -> "asyncio.Task[httpx.Response]":
                count = len(pipeline.futures)
                task = asyncio.create_task(post(size))
                while len(pipeline.futures) == count:
                    await asyncio.sleep(0)
                return task

            lone = await post_held(12)
            pipeline.futures[0].set_result(HttpResponse(200, "text/plain", b""))
            status = (await lone).status_code
            held = [await post_held(6), await post_held(4)]
            rejected = await asyncio.wait_for(post(1 if is_declared else 2), 60)
            for future in pipeline.futures[1:]:
                future.set_result(HttpResponse(200, "text/plain", b""))
            await asyncio.gather(*held)
            again = await post_held(10)
            pipeline.futures[-1].set_result(HttpResponse(200, "text/plain", b""))
            return status, rejected, (await again).status_code

    lone, rejected, again = asyncio.run(run())
    assert (lone, rejected.status_code, again) == (200, 503, 200)
    assert rejected.json()["error"]["code"] == "overloaded"
    assert int(rejected.headers["retry-after"]) >= 1
    # The rest of a body of unknown length is not read.
    assert ("connection" in rejected.headers) is not is_declared


def test_the_server_does_not_keep_a_submitted_request() -> None:
    kept: list[weakref.ref[HttpRequest]] = []

    class Forgetful(FakePipeline):
        def submit(self, request: HttpRequest) -> Any:
            future = super().submit(request)
            kept.append(weakref.ref(self.requests.pop()))
            return future

    pipeline = Forgetful(respond=None)
    app = create_app({"shapes": pipeline})

    async def run() -> bool:
        task = asyncio.create_task(status_of(app, "POST", "/invocations"))
        while not kept:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        gc.collect()
        is_kept = kept[0]() is not None
        pipeline.futures[0].set_result(HttpResponse(200, "text/plain", b""))
        await task
        return is_kept

    assert not asyncio.run(run())


def test_an_unexpected_error_is_500_and_its_traceback_has_the_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: HttpRequest) -> HttpResponse:
        raise RuntimeError("secret path")

    app = create_app({"shapes": FakePipeline(fail)})
    response = send(app, "POST", "/invocations")
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal"
    assert "secret" not in response.text
    assert any(record.exc_info for record in caplog.records)


def test_a_lost_device_is_reported_to_the_server() -> None:
    pipeline, lost = FakePipeline(respond=None), []

    def submit(request: HttpRequest) -> Any:
        future = FakePipeline.submit(pipeline, request)
        future.set_exception(DeviceLostError("gone"))
        return future

    pipeline.submit = submit  # type: ignore[method-assign]
    app = create_app({"shapes": pipeline}, on_device_lost=lambda: lost.append(1))
    assert send(app, "POST", "/invocations").status_code == 500
    assert lost == [1]
    assert send(app, "GET", "/ping").status_code == 503


def test_metrics_and_openapi() -> None:
    app = create_app({"shapes": FakePipeline()})
    metrics = send(app, "GET", "/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=")
    assert b"# TYPE d2serve_server_responses_total counter" in metrics.content
    document = send(app, "GET", "/openapi.json")
    assert document.headers["content-type"] == "application/json"
    assert document.json()["servers"] == [{"url": "/"}]
    assert "externalValue" not in document.text
    published = set(document.json()["paths"])
    paths = (route.path for route in app.routes)  # type: ignore[attr-defined]
    served = {path.replace("/shapes/", "/{name}/") for path in paths}
    assert served == published


def test_web_pages_of_other_origins_need_permission() -> None:
    origin = {"Origin": "https://example.org"}
    preflight = {**origin, "Access-Control-Request-Method": "POST"}
    closed = create_app({"shapes": FakePipeline()})
    assert "access-control-allow-origin" not in send(closed, "GET", "/v2", headers=origin).headers
    app = create_app(
        {"shapes": FakePipeline()},
        access=Access("secret-token"),
        cors_origins=["https://example.org"],
    )
    allowed = send(app, "OPTIONS", "/invocations", headers=preflight)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://example.org"
    listed = send(app, "GET", "/ping", headers=origin).headers["access-control-expose-headers"]
    assert "Inference-Header-Content-Length" in listed
    refused = send(app, "POST", "/invocations", headers=origin)
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://example.org"
    other = {**preflight, "Origin": "https://example.com"}
    refused = send(app, "OPTIONS", "/invocations", headers=other)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_request")
    assert refused.headers["server-timing"] == NO_STAGES
    assert len(refused.headers["x-request-id"]) == 32


def test_a_request_in_absolute_form_is_routed_by_its_path() -> None:
    app = create_app({"shapes": FakePipeline()})
    assert asyncio.run(status_of(app, "GET", "http://example.org/ping")) == 200
    assert asyncio.run(status_of(app, "GET", "http://example.org")) == 200
    assert asyncio.run(status_of(app, "GET", "http://example.org/other")) == 404


def test_requests_run_at_the_same_time() -> None:
    app = create_app({"shapes": FakePipeline()})
    responses = send_all(
        app, *[("POST", "/invocations", {"content": b"%d" % index}) for index in range(20)]
    )
    assert [each.json()["parts"][0][1] for each in responses] == [str(i) for i in range(20)]


def test_a_body_above_the_limit_is_413() -> None:
    app = create_app({"shapes": FakePipeline(settings=Settings(max_request_bytes=10))})
    assert send(app, "POST", "/invocations", content=b"x" * 10).status_code == 200
    declared = send(app, "POST", "/invocations", content=b"x" * 11)

    async def chunks() -> Any:
        yield b"x" * 6
        yield b"x" * 6

    streamed = send(app, "POST", "/invocations", content=chunks())
    for response in (declared, streamed):
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "too_large"
    assert streamed.headers["connection"] == "close"
