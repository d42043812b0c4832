import json
import logging
import os
import sys
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

from d2serve.detections import RGBImage
from d2serve.detector.native import NativeDetector
from d2serve.errors import DeviceLostError
from d2serve.messages import HttpRequest, Part
from d2serve.servers.torchserve import handler as torchserve_handler
from d2serve.servers.torchserve.handler import (
    Detectron2Handler,
    publish_response,
    to_request,
)
from d2serve.servers.torchserve.proxy.limits import Limits
from d2serve.servers.torchserve.workers import worker_device, worker_name
from d2serve.serving.pipeline import Pipeline
from d2serve.serving.requests import HttpResponse
from d2serve.settings import Settings
from tests.bodies import image_bytes, noise, npy_bytes
from tests.fakes import FakeDetector, metadata_of
from tests.servers.metric import Metric

PNG = image_bytes(noise(30, 40, 3), "PNG")
NPY = npy_bytes(noise(30, 40, 3))

Field = tuple[str, Any, str]


def wire_request(fields: Sequence[Field], headers: Mapping[str, str]) -> dict[str, Any]:
    """A request in TorchServe's protocol between frontend and worker: name, value, type."""
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
    """TorchServe's own rows and context of a batch."""
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
            id="a-query-string-is-not-a-part",
        ),
        pytest.param(
            [("body", bytearray(b"coco"), ""), ("body", bytearray(PNG), "image/png")],
            {"Content-Type": "image/png"},
            (Part("image/png", PNG),),
            id="a-query-parameter-named-body",
        ),
        pytest.param(
            [("body", bytearray(b"--x"), "")],
            {"X-D2serve-Content-Type": "multipart/form-data; boundary=x"},
            (Part("multipart/form-data; boundary=x", b"--x"),),
            id="a-form-behind-the-proxy",
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
            id="files-and-a-form-field",
        ),
        pytest.param(
            [("body", bytearray(PNG), "image/png")],
            {"content-type": "multipart/form-data; boundary=x"},
            (Part("image/png", PNG),),
            id="a-file-whose-field-is-named-body",
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
            id="torchserves-own-parameter",
        ),
        pytest.param(
            [("data", bytearray(PNG), "image/png"), ("classes", bytearray("köter".encode()), "")],
            {"classes": "köter"},
            id="a-form-field",
        ),
        pytest.param(
            [("masks", bytearray(b"\xff\xfe"), ""), ("body", bytearray(PNG), "image/png")],
            {"masks": "\ufffd\ufffd"},
            id="invalid-utf-8",
        ),
    ],
)
def test_query_strings_and_form_fields_are_distinguished_from_bodies(
    fields: Sequence[Field], expected: dict[str, str]
) -> None:
    assert as_request(fields, {"Content-Type": "image/png"}).query == expected


def test_the_servers_request_id_is_kept() -> None:
    assert as_request([("body", bytearray(PNG), "image/png")], {}).request_id == "1234"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"image": "aGVsbG8="}, id="object"),
        pytest.param([1, 2], id="list"),
        pytest.param(10**15, id="number"),
        pytest.param("text \ud800", id="text-with-a-lone-surrogate"),
        pytest.param(None, id="null"),
    ],
)
def test_json_decoded_by_torchserve_is_encoded_again(value: Any) -> None:
    request = as_request([("body", value, "application/json")], {})
    (part,) = request.parts
    assert part.content_type == "application/json"
    assert json.loads(part.body) == value


@pytest.mark.parametrize("name", ["Accept", "accept", "ACCEPT", "aCCept"])
def test_header_names_are_lowercased(name: str) -> None:
    request = as_request([("body", bytearray(PNG), "")], {name: "image/png", "X-Other": "1"})
    assert request.headers == {"accept": "image/png", "x-other": "1"}


@pytest.mark.parametrize("name", ["Content-Type", "content-type", "CONTENT-TYPE"])
def test_the_content_type_header_is_that_of_the_body(name: str) -> None:
    request = as_request([("body", bytearray(PNG), "")], {name: "image/webp"})
    assert request.parts == (Part("image/webp", PNG),)


def test_a_response_is_published_only_for_its_own_request() -> None:
    _, context = batch_in_context(wire_request([], {}), wire_request([], {}))
    headers = {"Server-Timing": "decode;dur=1.00"}
    publish_response(HttpResponse(415, "application/json", b"{}", headers), context, 1)
    assert context.get_response_status(1) == (415, "Unsupported Media Type")
    assert context.get_response_content_type(1) == "application/json"
    assert context.get_response_headers(1)["Server-Timing"] == "decode;dur=1.00"
    assert context.get_response_status(0) == (200, None)
    assert context.get_response_headers(0) == {}


@pytest.mark.parametrize("status", [200, 400, 406, 408, 413, 415, 422, 499, 500, 503, 507])
def test_every_status_of_the_contract_has_a_phrase(status: int) -> None:
    _, context = batch_in_context(wire_request([], {}))
    publish_response(HttpResponse(status, "application/json", b"{}"), context, 0)
    code, phrase = context.get_response_status(0)
    assert code == status
    assert phrase


def loaded_worker(detector: FakeDetector) -> Detectron2Handler:
    """A worker with a loaded model."""
    worker = Detectron2Handler()
    worker.pipeline = Pipeline(detector, metadata_of("ball"), Settings(), server_forms_batches=True)
    return worker


def test_each_request_of_a_batch_gets_its_own_response() -> None:
    detector = FakeDetector()
    rows, context = batch_in_context(
        wire_request([("body", bytearray(PNG), "image/png")], {"Content-Type": "image/png"}),
        wire_request([("body", bytearray(b"?"), "text/plain")], {"Content-Type": "text/plain"}),
        wire_request([("data", bytearray(NPY), "application/x-npy")], {"ACCEPT": "image/png"}),
        wire_request(
            [("body", {"image": b64encode(PNG).decode()}, "application/json")], {"host": "a"}
        ),
        wire_request([("body", bytearray(PNG), "")], {"accept": "audio/*"}),
    )
    bodies = loaded_worker(detector).handle(rows, context)
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
    assert detector.images_per_call == [3]
    for index in range(5):
        assert "decode;dur=" in context.get_response_headers(index)["Server-Timing"]


class FakeSocket:
    """A worker's end of its connection to TorchServe."""

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
def test_a_worker_has_torchserves_name(address: Any, number: str) -> None:
    _, context = batch_in_context()
    context.manifest = {"model": {"modelVersion": "1.0"}}
    context.cl_socket = FakeSocket(address)
    assert worker_name(context) == f"W-{number}-shapes_1.0"


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_request_over_grpc_gets_an_error_in_its_place(position: int) -> None:
    requests = [wire_request([("body", bytearray(PNG), "")], {"host": "a"})] * 2
    requests.insert(position, wire_request([("data", bytearray(PNG), "")], {}))
    rows, context = batch_in_context(*requests)
    bodies = [json.loads(body) for body in loaded_worker(FakeDetector()).handle(rows, context)]
    assert "gRPC" in bodies.pop(position)["error"]["message"]
    assert [body["names"] for body in bodies] == [["ball"]] * 2
    assert context.get_response_status(position)[0] == 400


def test_a_worker_outside_a_server_has_no_number() -> None:
    _, context = batch_in_context()
    assert worker_name(context) == "W--shapes_1.0"


def test_a_worker_is_active_while_a_batch_runs() -> None:
    idle_s: list[float] = []

    def fails(_: RGBImage) -> bool:
        idle_s.append(worker.activity.idle_s())
        return False

    worker = loaded_worker(FakeDetector(fails))
    rows, context = batch_in_context(wire_request([("body", bytearray(PNG), "")], {"host": "a"}))
    worker.handle(rows, context)
    assert idle_s == [0]
    assert worker.activity.idle_s() > 0


def test_torchserve_can_encode_the_handlers_result() -> None:
    rows, context = batch_in_context(
        wire_request([("body", bytearray(PNG), "")], {}), wire_request([], {})
    )
    bodies = loaded_worker(FakeDetector()).handle(rows, context)
    message = create_predict_response(
        bodies, context.request_ids, "Prediction success", 200, context=context
    )
    for body in bodies:
        assert body in message


def test_a_worker_without_a_gpu_of_its_own_runs_on_the_cpu() -> None:
    _, context = batch_in_context()
    assert worker_device(context) == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_worker_with_a_missing_gpu_runs_on_the_cpu() -> None:
    _, context = batch_in_context(gpu_id=0)
    assert worker_device(context) == torch.device("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_worker_runs_on_its_assigned_gpu() -> None:
    _, context = batch_in_context(gpu_id=0)
    assert worker_device(context) == torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("classes=cat&masks=rle&classes=dog&masks=none", {"classes": "cat,dog", "masks": "none"}),
        ("", {}),
        ("masks=none", {"masks": "none"}),
        ("classes=a%20b,c&masks=", {"classes": "a b,c", "masks": ""}),
        ("masks=rle&masks=none", {"masks": "none"}),
        ("model_name=shapes&masks=%zz", {"masks": "%zz"}),
        ("body=x", {"body": "x"}),
    ],
)
def test_the_query_string_comes_from_the_proxys_header(
    query: str, expected: dict[str, str]
) -> None:
    request = as_request([("body", bytearray(PNG), "image/png")], {"x-d2serve-query": query})
    assert request.query == expected
    assert request.parts == (Part("image/png", PNG),)


class FakeProxy:
    """The part of the proxy that translates headers."""

    def __init__(self) -> None:
        self.disconnects = self
        self.disconnected: set[str] = set()

    def is_disconnected(self, client_id: str) -> bool:
        return client_id in self.disconnected


def test_the_proxy_supplies_arrival_protocol_and_disconnects() -> None:
    proxy: Any = FakeProxy()
    headers = {
        "x-d2serve-arrived": "12.5",
        "x-d2serve-client": "7",
        "x-d2serve-protocol": "open-inference",
    }
    request = to_request({"body": PNG}, headers, "1234", proxy)
    assert (request.arrived, request.is_open_inference) == (12.5, True)
    assert not request.is_disconnected()
    proxy.disconnected.add("7")
    assert request.is_disconnected()
    plain = to_request({"body": PNG}, {"x-d2serve-client": "8"}, "1234", proxy)
    assert (plain.arrived, plain.is_open_inference) == (None, False)
    assert not plain.is_disconnected()


@pytest.mark.parametrize("arrived", ["", "forged", "nan", "inf", "-inf"])
def test_a_time_of_arrival_that_is_not_the_proxys_is_ignored(arrived: str) -> None:
    proxy: Any = FakeProxy()
    request = to_request({"body": PNG}, {"x-d2serve-arrived": arrived}, "1234", proxy)
    assert request.arrived is None


def test_headers_of_the_proxy_count_only_with_a_proxy() -> None:
    headers = {"x-d2serve-arrived": "forged", "x-d2serve-protocol": "open-inference"}
    request = to_request({"body": PNG}, headers, "1234")
    assert (request.arrived, request.is_open_inference) == (None, False)


def test_a_lost_device_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(_: object) -> None:
        raise DeviceLostError

    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)
    worker = loaded_worker(FakeDetector())
    monkeypatch.setattr(worker.pipeline, "run", lose)
    rows, context = batch_in_context(wire_request([("body", bytearray(PNG), "")], {}))
    worker.handle(rows, context)
    assert codes == [1]


class FakeLifecycle:
    """Replaces warm-up, the proxy and draining, and records their arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, has_proxy: bool = True) -> None:
        self.has_proxy = has_proxy
        self.proxies: list[tuple[object, ...]] = []
        self.drained: list[tuple[object, ...]] = []
        self.warmed_up: list[tuple[object, ...]] = []
        monkeypatch.setattr(
            "d2serve.serving.loading.warm_up", lambda *args: self.warmed_up.append(args)
        )
        monkeypatch.setattr(torchserve_handler, "start_proxy", self._start_proxy)
        monkeypatch.setattr(
            torchserve_handler, "start_draining", lambda *args: self.drained.append(args)
        )

    def _start_proxy(self, *arguments: Any) -> "FakeLifecycle | None":
        self.proxies.append(arguments[:3])
        [self.on_lost, self.on_event] = arguments[3:]
        return self if self.has_proxy else None

    def close(self) -> None:
        """Part of the proxy's interface."""


@pytest.fixture
def archive_context(shapes_mar: Path, tmp_path: Path) -> Context:
    """A worker's context for the bundled model."""
    with zipfile.ZipFile(shapes_mar) as archive:
        archive.extractall(tmp_path)
    return Context("shapes", str(tmp_path), {}, 1, None, "0.12.0")


@pytest.mark.parametrize("has_proxy", [True, False])
def test_a_loaded_worker_starts_the_proxy_and_closes_it_on_shutdown(
    archive_context: Context, monkeypatch: pytest.MonkeyPatch, has_proxy: bool
) -> None:
    monkeypatch.setenv("D2SERVE_DRAIN_SECONDS", "7")
    monkeypatch.setenv("D2SERVE_MAX_CONNECTIONS", "8")
    monkeypatch.setenv("D2SERVE_MAX_REQUEST_BYTES", "9")
    monkeypatch.setenv("D2SERVE_WARM_UP_SIZES", "64x48")
    lifecycle = FakeLifecycle(monkeypatch, has_proxy=has_proxy)
    worker = Detectron2Handler()
    worker.initialize(archive_context)
    assert worker.initialized
    assert lifecycle.warmed_up == [(worker.pipeline, ((64, 48),), [1])]
    assert lifecycle.proxies == [(os.environ, ("shapes", "1.0"), Limits(8, 9))]
    on_stop = lifecycle.close if has_proxy else None
    assert lifecycle.drained == [(worker.activity, os.environ, 7, on_stop)]
    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)
    lifecycle.on_lost()
    assert codes == [1]


def test_a_loaded_worker_publishes_its_start_and_the_proxys_responses(
    archive_context: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    starts, responses = Metric(), Metric("Status", "Code")
    archive_context.metrics = SimpleNamespace(
        cache={
            "counter": {
                "d2serve_worker_starts_total": starts,
                "d2serve_proxy_responses_total": responses,
            }
        }
    )
    lifecycle = FakeLifecycle(monkeypatch)
    worker = Detectron2Handler()
    worker.initialize(archive_context)
    assert isinstance(worker.pipeline.detector, NativeDetector)
    assert starts.recorded == [(1, [])]
    event = {"event": "proxy_response", "status": 404, "code": "not_found"}
    with caplog.at_level(logging.INFO):
        lifecycle.on_event(event)
    assert responses.recorded == [(1, ["404", "not_found"])]
    assert json.loads(caplog.messages[-1]) == event


@pytest.mark.skipif(sys.platform != "linux", reason="weights are shared on Linux only")
@pytest.mark.parametrize("workers", [1, 2])
def test_only_several_workers_write_a_file_of_the_weights(
    archive_context: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: int
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(torchserve_handler, "read_workers", lambda _: workers)
    FakeLifecycle(monkeypatch)
    Detectron2Handler().initialize(archive_context)
    assert len(list(tmp_path.glob("d2serve-weights-*"))) == workers - 1


def test_zero_drain_seconds_disable_draining(
    archive_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("D2SERVE_DRAIN_SECONDS", "0")
    lifecycle = FakeLifecycle(monkeypatch)
    Detectron2Handler().initialize(archive_context)
    assert len(lifecycle.proxies) == 1
    assert lifecycle.drained == []


def test_a_worker_that_cannot_warm_up_starts_no_proxy(
    archive_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    lifecycle = FakeLifecycle(monkeypatch)
    monkeypatch.setattr("d2serve.serving.loading.warm_up", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        Detectron2Handler().initialize(archive_context)
    assert (lifecycle.proxies, lifecycle.drained) == ([], [])
