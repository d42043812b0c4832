import json
import logging
import os
import zipfile
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ts.context import Context
from ts.protocol.otf_message_handler import create_predict_response
from ts.service import Service

from d2serve.detections import Picture
from d2serve.detector.base import ForwardLog
from d2serve.detector.native import NativeDetector
from d2serve.messages import HttpRequest, Part
from d2serve.servers.torchserve import handler as service
from d2serve.servers.torchserve.handler import (
    Detectron2Handler,
    declared_metrics,
    publish_response,
    to_request,
    worker_device,
    worker_name,
)
from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.serving.metrics import DeclaredMetric, Publisher, Reporter
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.telemetry import HttpResponse
from d2serve.settings import Settings
from tests.bodies import image_bytes, noise, npy_bytes
from tests.fakes import FakeDetector, facts
from tests.core.metric import Metric

PNG = image_bytes(noise(30, 40, 3), "PNG")
NPY = npy_bytes(noise(30, 40, 3))

Field = tuple[str, Any, str]


def wire_request(fields: Sequence[Field], headers: Mapping[str, str]) -> dict[str, Any]:
    """A request as TorchServe's worker reads it from its frontend: name, value, content type."""
    return {
        "requestId": b"1234",
        "parameters": [
            {"name": name, "value": value, "contentType": content_type}
            for name, value, content_type in fields
        ],
        "headers": [
            {"name": bytearray(name.encode()), "value": bytearray(value.encode())}
            for name, value in headers.items()
        ],
    }


def batch_in_context(
    *requests: dict[str, Any], gpu_id: int | None = None
) -> tuple[list[dict[str, Any]], Context]:
    """TorchServe's own rows and context for a batch."""
    context = Context("shapes", "/model", {}, len(requests), gpu_id, "0.12.0")
    processors, rows, request_ids = Service.retrieve_data_for_inference(list(requests))
    context.request_processor = processors
    context.request_ids = request_ids
    return rows, context


def as_request(fields: Sequence[Field], headers: Mapping[str, str]) -> HttpRequest:
    rows, context = batch_in_context(wire_request(fields, headers))
    return to_request(rows[0], context.get_all_request_header(0), context.get_request_id(0))


@pytest.mark.parametrize(
    ("fields", "headers", "expected"),
    [
        pytest.param([], {}, (), id="nothing"),
        pytest.param([("body", bytearray(), "")], {}, (Part("", b""),), id="an-empty-body"),
        pytest.param([("body", bytearray(PNG), "")], {}, (Part("", PNG),), id="no-content-type"),
        pytest.param(
            [("body", bytearray(PNG), "image/png")],
            {"Content-Type": "image/png"},
            (Part("image/png", PNG),),
            id="a-content-type",
        ),
        pytest.param(
            [("format", bytearray(b"coco"), ""), ("body", bytearray(PNG), "image/png")],
            {"Content-Type": "image/png"},
            (Part("image/png", PNG),),
            id="a-query-string-is-no-part",
        ),
        pytest.param(
            [("body", bytearray(b"coco"), ""), ("body", bytearray(PNG), "image/png")],
            {"Content-Type": "image/png"},
            (Part("image/png", PNG),),
            id="a-query-string-that-speaks-of-a-body",
        ),
        pytest.param(
            [("data", bytearray(PNG), "image/png")],
            {"Content-Type": "multipart/form-data; boundary=x"},
            (Part("image/png", PNG),),
            id="one-file",
        ),
        pytest.param(
            [
                ("first", bytearray(PNG), "image/png"),
                ("note", bytearray(b"hello"), ""),
                ("second", bytearray(NPY), "application/octet-stream"),
            ],
            {"Content-Type": "multipart/form-data; boundary=x"},
            (Part("image/png", PNG), Part("application/octet-stream", NPY)),
            id="files-beside-a-form-field",
        ),
        pytest.param(
            [("body", bytearray(PNG), "image/png")],
            {"content-type": "multipart/form-data; boundary=x"},
            (Part("image/png", PNG),),
            id="a-file-whose-field-is-called-body",
        ),
        pytest.param(
            [("data", bytearray(PNG), "image/png"), ("data2", bytearray(), "image/png")],
            {"Content-Type": "multipart/form-data; boundary=x"},
            (Part("image/png", PNG), Part("image/png", b"")),
            id="an-empty-file",
        ),
    ],
)
def test_bodies_and_files_become_parts(
    fields: Sequence[Field], headers: Mapping[str, str], expected: tuple[Part, ...]
) -> None:
    assert as_request(fields, headers).parts == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param([], {}, id="nothing"),
        pytest.param([("body", bytearray(PNG), "image/png")], {}, id="a-body"),
        pytest.param(
            [("masks", bytearray(b"none"), ""), ("body", bytearray(PNG), "image/png")],
            {"masks": "none"},
            id="a-query-string",
        ),
        pytest.param(
            [("model_name", bytearray(b"shapes"), ""), ("body", bytearray(PNG), "image/png")],
            {},
            id="torchserves-own",
        ),
        pytest.param(
            [("data", bytearray(PNG), "image/png"), ("classes", bytearray("köter".encode()), "")],
            {"classes": "köter"},
            id="a-form-field",
        ),
        pytest.param(
            [("masks", bytearray(b"\xff\xfe"), ""), ("body", bytearray(PNG), "image/png")],
            {"masks": "\ufffd\ufffd"},
            id="no-utf-8",
        ),
    ],
)
def test_query_strings_and_form_fields_are_told_from_bodies(
    fields: Sequence[Field], expected: dict[str, str]
) -> None:
    assert as_request(fields, {"Content-Type": "image/png"}).query == expected


def test_the_servers_name_for_a_request_is_kept() -> None:
    assert as_request([("body", bytearray(PNG), "image/png")], {}).request_id == "1234"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"image": "aGVsbG8="}, id="object"),
        pytest.param([1, 2], id="list"),
        pytest.param(10**15, id="number"),
        pytest.param("text \ud800", id="text-with-half-a-character"),
        pytest.param(None, id="null"),
    ],
)
def test_json_that_torchserve_has_decoded_becomes_bytes_again(value: Any) -> None:
    request = as_request([("body", value, "application/json")], {})
    (part,) = request.parts
    assert part.content_type == "application/json"
    assert json.loads(part.body) == value


@pytest.mark.parametrize("name", ["Accept", "accept", "ACCEPT", "aCCept"])
def test_headers_are_found_however_the_client_typed_them(name: str) -> None:
    request = as_request([("body", bytearray(PNG), "")], {name: "image/png", "X-Other": "1"})
    assert request.headers == {"accept": "image/png", "x-other": "1"}


@pytest.mark.parametrize("name", ["Content-Type", "content-type", "CONTENT-TYPE"])
def test_the_content_type_header_tells_what_the_body_is(name: str) -> None:
    request = as_request([("body", bytearray(PNG), "")], {name: "image/webp"})
    assert request.parts == (Part("image/webp", PNG),)


def test_a_response_is_published_for_its_own_request_alone() -> None:
    _, context = batch_in_context(wire_request([], {}), wire_request([], {}))
    headers = {"Server-Timing": "decode;dur=1.00"}
    publish_response(HttpResponse(415, "application/json", b"{}", headers), context, 1)
    assert context.get_response_status(1) == (415, "Unsupported Media Type")
    assert context.get_response_content_type(1) == "application/json"
    assert context.get_response_headers(1)["Server-Timing"] == "decode;dur=1.00"
    assert context.get_response_status(0) == (200, None)
    assert context.get_response_headers(0) == {}


@pytest.mark.parametrize("status", [200, 400, 406, 413, 415, 422, 500, 503, 507])
def test_every_status_of_the_contract_has_a_phrase(status: int) -> None:
    _, context = batch_in_context(wire_request([], {}))
    publish_response(HttpResponse(status, "application/json", b"{}"), context, 0)
    code, phrase = context.get_response_status(0)
    assert code == status
    assert phrase


def serving(
    detector: FakeDetector, declared: Mapping[str, DeclaredMetric] | None = None
) -> Detectron2Handler:
    """A worker that has loaded; `declared` metrics are TorchServe's."""
    worker = Detectron2Handler()
    worker.pipeline = Pipeline(detector, facts("ball"), Settings())
    worker.reporter = Reporter(
        Publisher(declared or {}, "shapes"), ForwardLog(), torch.device("cpu"), "shapes", True
    )
    return worker


def test_a_batch_is_handled_end_to_end_each_request_with_its_own_answer() -> None:
    detector = FakeDetector()
    rows, context = batch_in_context(
        wire_request([("body", bytearray(PNG), "image/png")], {"Content-Type": "image/png"}),
        wire_request([("body", bytearray(b"?"), "text/plain")], {"Content-Type": "text/plain"}),
        wire_request([("data", bytearray(NPY), "application/x-npy")], {"ACCEPT": "image/png"}),
        wire_request([("body", {"image": b64encode(PNG).decode()}, "application/json")], {}),
        wire_request([("body", bytearray(PNG), "")], {"accept": "audio/*"}),
    )
    bodies = serving(detector).handle(rows, context)
    assert [context.get_response_status(index) for index in range(5)] == [
        (200, "OK"),
        (415, "Unsupported Media Type"),
        (200, "OK"),
        (200, "OK"),
        (406, "Not Acceptable"),
    ]
    assert [context.get_response_content_type(index) for index in range(5)] == [
        "application/json",
        "application/json",
        "image/png",
        "application/json",
        "application/json",
    ]
    assert json.loads(bodies[0])["names"] == ["ball"]
    assert json.loads(bodies[1])["error"]["code"] == "unsupported_media_type"
    assert bodies[2].startswith(b"\x89PNG")
    assert detector.pictures_per_call == [3]
    for index in range(5):
        assert "decode;dur=" in context.get_response_headers(index)["Server-Timing"]


class Connection:
    """A worker's end of its socket."""

    def __init__(self, address: Any) -> None:
        self.address = address

    def getsockname(self) -> Any:
        return self.address


@pytest.mark.parametrize(
    ("address", "number"),
    [
        pytest.param("/tmp/.ts.sock.9003", "9003", id="unix"),
        pytest.param(("127.0.0.1", 9004), "9004", id="tcp"),
        pytest.param("", "", id="unknown"),
    ],
)
def test_a_worker_is_called_what_torchserve_calls_it(address: Any, number: str) -> None:
    _, context = batch_in_context()
    context.manifest = {"model": {"modelVersion": "1.0"}}
    context.cl_socket = Connection(address)
    assert worker_name(context) == f"W-{number}-shapes_1.0"


def test_outside_a_server_a_worker_has_no_number() -> None:
    _, context = batch_in_context()
    assert worker_name(context) == "W--shapes_"


def test_the_metrics_are_those_that_the_server_declares() -> None:
    _, context = batch_in_context()
    assert declared_metrics(context) == {}
    counter, gauge = Metric(), Metric()
    context.metrics = SimpleNamespace(cache={"counter": {"a": counter}, "gauge": {"b": gauge}})
    assert list(declared_metrics(context).items()) == [("a", counter), ("b", gauge)]


def test_each_answer_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    counter = Metric("Code")
    rows, context = batch_in_context(
        wire_request([("body", bytearray(PNG), "")], {}),
        wire_request([("body", bytearray(b"?"), "")], {}),
        wire_request([("body", bytearray(PNG), "")], {}),
    )
    with caplog.at_level(logging.INFO):
        serving(FakeDetector(), {"d2serve_requests_total": counter}).handle(rows, context)
    assert counter.given == [(2, ["ok"]), (1, ["unsupported_media_type"])]
    lines = [json.loads(line) for line in caplog.messages if line.startswith("{")]
    assert [line["status"] for line in lines] == [200, 415, 200]
    assert {line["id"] for line in lines} == {"1234"}
    assert all(line["batch_ms"] > 0 for line in lines)


def test_a_worker_is_active_while_it_answers() -> None:
    idle_s: list[float] = []

    def fails(_: Picture) -> bool:
        idle_s.append(worker.activity.idle_s())
        return False

    worker = serving(FakeDetector(fails))
    rows, context = batch_in_context(wire_request([("body", bytearray(PNG), "")], {}))
    worker.handle(rows, context)
    assert idle_s == [0]
    assert worker.activity.idle_s() > 0


def test_torchserve_can_send_what_the_handler_returns() -> None:
    rows, context = batch_in_context(
        wire_request([("body", bytearray(PNG), "")], {}), wire_request([], {})
    )
    bodies = serving(FakeDetector()).handle(rows, context)
    message = create_predict_response(
        bodies, context.request_ids, "Prediction success", 200, context=context
    )
    for body in bodies:
        assert body in message


def test_a_worker_without_a_gpu_of_its_own_runs_on_the_cpu() -> None:
    _, context = batch_in_context()
    assert worker_device(context) == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="here the worker would get the GPU")
def test_a_gpu_that_is_not_there_leaves_the_cpu() -> None:
    _, context = batch_in_context(gpu_id=0)
    assert worker_device(context) == torch.device("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_worker_runs_on_the_gpu_that_it_was_given() -> None:
    _, context = batch_in_context(gpu_id=0)
    assert worker_device(context) == torch.device("cuda", 0)


class Lifecycle:
    """Stands in for warming up, the front door and draining, and remembers what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, has_door: bool = True) -> None:
        self.has_door = has_door
        self.opened: list[tuple[Mapping[str, str], Limits]] = []
        self.held: list[tuple[object, ...]] = []
        self.warmed_up: list[tuple[object, ...]] = []
        monkeypatch.setattr(
            "d2serve.serving.loading.warm_up", lambda *asked: self.warmed_up.append(asked)
        )
        monkeypatch.setattr(service, "open_front_door", self._open)
        monkeypatch.setattr(service, "hold_while_busy", lambda *asked: self.held.append(asked))

    def _open(self, environment: Mapping[str, str], limits: Limits) -> "Lifecycle | None":
        self.opened.append((environment, limits))
        return self if self.has_door else None

    def close(self) -> None:
        """As a front door has it."""


@pytest.fixture
def loading(shapes_mar: Path, tmp_path: Path) -> Context:
    """A worker's context for the bundled model."""
    with zipfile.ZipFile(shapes_mar) as archive:
        archive.extractall(tmp_path)
    return Context("shapes", str(tmp_path), {}, 1, None, "0.12.0")


@pytest.mark.parametrize("has_door", [True, False])
def test_a_loaded_worker_opens_its_door_and_closes_it_when_told_to_stop(
    loading: Context, monkeypatch: pytest.MonkeyPatch, has_door: bool
) -> None:
    monkeypatch.setenv("D2SERVE_DRAIN_SECONDS", "7")
    monkeypatch.setenv("D2SERVE_MAX_CONNECTIONS", "7")
    monkeypatch.setenv("D2SERVE_REQUEST_HEAD_SECONDS", "8")
    monkeypatch.setenv("D2SERVE_REQUEST_BODY_SECONDS", "9")
    monkeypatch.setenv("D2SERVE_KEEP_ALIVE_SECONDS", "10")
    monkeypatch.setenv("D2SERVE_WARM_UP_SIZES", "64x48")
    asked = Lifecycle(monkeypatch, has_door=has_door)
    worker = Detectron2Handler()
    worker.initialize(loading)
    assert worker.initialized
    assert asked.warmed_up == [(worker.pipeline, ((64, 48),), [1])]
    assert asked.opened == [(os.environ, Limits(7, 8, 9, 10))]
    on_stop = asked.close if has_door else None
    assert asked.held == [(worker.activity, os.environ, 7, on_stop)]


@pytest.mark.parametrize("wanted", ["true", "false"])
def test_a_loaded_worker_counts_its_start_and_logs_as_it_is_told(
    loading: Context, monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    starts = Metric()
    loading.metrics = SimpleNamespace(cache={"counter": {"d2serve_worker_starts_total": starts}})
    monkeypatch.setenv("D2SERVE_REQUEST_LOG", wanted)
    Lifecycle(monkeypatch)
    worker = Detectron2Handler()
    worker.initialize(loading)
    assert isinstance(worker.pipeline.detector, NativeDetector)
    assert starts.given == [(1, [])]
    assert worker.reporter.logs_requests is (wanted == "true")
    assert worker.reporter.forwards is worker.pipeline.detector.forwards


def test_no_time_to_drain_is_no_draining(loading: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D2SERVE_DRAIN_SECONDS", "0")
    asked = Lifecycle(monkeypatch)
    Detectron2Handler().initialize(loading)
    assert len(asked.opened) == 1
    assert asked.held == []


def test_a_worker_that_cannot_warm_up_opens_no_door(
    loading: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    asked = Lifecycle(monkeypatch)
    monkeypatch.setattr("d2serve.serving.loading.warm_up", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        Detectron2Handler().initialize(loading)
    assert (asked.opened, asked.held) == ([], [])
