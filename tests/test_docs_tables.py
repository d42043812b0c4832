"""Tables of the documentation, compared with the code: a list that is missing an entry fails."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from d2serve.building.archive import DEFAULT_MODEL_CONFIG
from d2serve.cli.main import app
from d2serve.cli.serve import ASGI_PANEL
from d2serve.errors import CODES
from d2serve.messages import MAX_HEAD_BYTES
from d2serve.servers.asgi.app import create_app
from d2serve.servers.asgi.limits import ConnectionLimits
from d2serve.servers.asgi.metrics import SERVER_RESPONSES
from d2serve.servers.asgi.models import Models
from d2serve.servers.asgi.process import KEEP_ALIVE_S
from d2serve.servers.asgi.protocol import SPARE_CONNECTIONS
from d2serve.servers.torchserve.metrics_sink import PROXY_RESPONSES
from d2serve.servers.torchserve.proxy import limits as proxy_limits
from d2serve.servers.torchserve.proxy.routes import ROUTES
from d2serve.serving.metrics import IMAGES, METRICS, SECONDS
from d2serve.settings import SETTING_NAMES, Settings
from tests.serving.prometheus import labels_in, names_in

DOCS = Path(__file__).resolve().parent.parent / "docs"
METRICS_YAML = DOCS.parent / "handler/d2serve/servers/torchserve/metrics.yaml"
# Metrics of the servers themselves -> their labels.
SERVER_METRICS = {PROXY_RESPONSES: {"Status", "Code"}, SERVER_RESPONSES: {"Status", "Code"}}
# Labels of each sample of the core, of TorchServe, and of Prometheus.
COMMON_LABELS = {"ModelName", "WorkerName", "model_name", "instance", "job", "le"}
# A histogram has three series.
SUFFIX = re.compile(r"_(bucket|sum|count)$")


def rows_of(page: str, heading: str) -> Iterator[list[str]]:
    """The cells of each row of the tables in a section and its subsections."""
    text = (DOCS / page).read_text(encoding="utf-8")
    _, _, rest = text.partition(f"{heading}\n")
    next_heading = re.compile(rf"^#{{1,{heading.index(' ')}}} ", re.MULTILINE)
    for line in next_heading.split(rest, maxsplit=1)[0].splitlines():
        if line.startswith("|") and not line.startswith("| ---"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def code_in(text: str) -> list[str]:
    """The texts between backticks."""
    return re.findall(r"`([^`]+)`", text)


def as_documented(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"`{value}`" if isinstance(value, str) else str(value)


def test_the_settings_of_d2serve_have_their_defaults() -> None:
    rows = rows_of("serving.md", "## Settings")
    table = {code_in(row[0])[0]: row[1] for row in rows if code_in(row[0])}
    documented = {
        name.removeprefix("handler."): default
        for name, default in table.items()
        if name != "handler.response_type"
    }
    assert documented == {name: as_documented(getattr(Settings(), name)) for name in SETTING_NAMES}


def test_the_settings_of_torchserve_have_their_defaults() -> None:
    rows = [row for row in rows_of("torchserve.md", "## Settings") if code_in(row[0])]
    documented = {name: row[1] for row in rows for name in code_in(row[0])}
    own = {name: str(value) for name, value in DEFAULT_MODEL_CONFIG.items() if name != "handler"}
    assert documented == own


def test_every_metric_has_its_kind_and_labels() -> None:
    rows = [row for row in rows_of("operating.md", "## Metrics") if "d2serve_" in row[0]]
    documented = {code_in(row[0])[0]: row for row in rows}
    assert set(documented) == {*SERVER_METRICS, *(each.name for each in METRICS)}
    for each in METRICS:
        _, kind, meaning = documented[each.name]
        assert kind == each.kind, each.name
        assert set(each.labels) <= set(code_in(meaning)), each.name


def test_the_buckets_are_those_of_the_code() -> None:
    text = " ".join((DOCS / "operating.md").read_text(encoding="utf-8").split())
    times, images = (", ".join(f"{each:g}" for each in bounds) for bounds in (SECONDS, IMAGES))
    assert f"{times} for times and {images} for images" in text


def test_torchserve_declares_every_metric() -> None:
    declared = {
        metric["name"]: (kind, set(metric["dimensions"]))
        for kind, metrics in yaml.safe_load(METRICS_YAML.read_text())["model_metrics"].items()
        for metric in metrics
        if metric["name"].startswith("d2serve_")
    }
    expected = {each.name: (each.kind, set(each.labels)) for each in METRICS}
    expected[PROXY_RESPONSES] = "counter", SERVER_METRICS[PROXY_RESPONSES]
    assert set(declared) == set(expected)
    for name, (kind, labels) in expected.items():
        assert declared[name][0] == kind, name
        assert labels <= declared[name][1], name


def dashboard_queries() -> Iterator[str]:
    board = json.loads((DOCS / "grafana" / "d2serve.json").read_text(encoding="utf-8"))
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel.get("targets", []))


def alert_queries() -> Iterator[str]:
    page = (DOCS / "operating.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        for group in yaml.safe_load(block).get("groups", []):
            yield from (rule["expr"] for rule in group["rules"])


def own_names_in(expression: str) -> set[str]:
    names = (SUFFIX.sub("", name) for name in names_in(expression))
    return {name for name in names if name.startswith("d2serve_")}


@pytest.mark.parametrize("query", [*dashboard_queries(), *alert_queries()])
def test_queries_use_declared_metrics_and_labels(query: str) -> None:
    labels = {each.name: set(each.labels) for each in METRICS} | SERVER_METRICS
    names = own_names_in(query)
    assert names <= set(labels)
    known = COMMON_LABELS.union(*(labels[name] for name in names))
    assert labels_in(query) <= known


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for query in dashboard_queries() for name in own_names_in(query)}
    assert shown == {*SERVER_METRICS, *(each.name for each in METRICS)}


def without_versions(paths: Iterable[str]) -> set[str]:
    """Paths without those that differ from another one only by a version."""
    return {path.replace("/versions/{version}", "") for path in paths}


def test_every_route_is_documented() -> None:
    rows = list(rows_of("api.md", "## Routes"))
    texts = [text for row in rows for text in code_in(row[0])]
    documented = without_versions(text.split(" ")[-1] for text in texts)
    served = create_app(Models(["shapes"])).routes
    paths = (str(getattr(route, "path", "")) for route in served)
    assert documented == without_versions(path.replace("/shapes/", "/{name}/") for path in paths)
    proxied = without_versions(route.template for route in ROUTES)
    assert proxied - {"/"} < documented


def test_every_error_is_documented() -> None:
    rows = [row for row in rows_of("api.md", "## Errors") if row[0].isdecimal()]
    assert [(int(row[0]), *code_in(row[1])) for row in rows] == list(CODES)


def options_of_serve() -> dict[str, bool]:
    """Each option of `d2serve serve`, and whether only the ASGI server has it."""
    command: Any = typer.main.get_command(app)
    options = (each for each in command.commands["serve"].params if each.opts[0].startswith("--"))
    return {each.opts[0]: each.rich_help_panel == ASGI_PANEL for each in options}


@pytest.mark.parametrize(
    ("page", "heading", "is_asgi"),
    [("serving.md", "# Running a server", False), ("asgi.md", "## Options", True)],
)
def test_every_option_of_serve_is_documented(page: str, heading: str, is_asgi: bool) -> None:
    options = options_of_serve()
    own = {name for name, is_own in options.items() if is_own == is_asgi} - {"--help"}
    cells = [code for row in rows_of(page, heading) for cell in row[:2] for code in code_in(cell)]
    documented = {code.split(" ")[0] for code in cells if code.startswith("--")}
    assert len(own) > 3
    assert own <= documented <= set(options)


def test_connection_limits_are_those_of_both_servers() -> None:
    asgi = ConnectionLimits()
    assert asgi.head_s == proxy_limits.REQUEST_HEAD_SECONDS
    assert asgi.delivery_s == proxy_limits.REQUEST_BODY_SECONDS
    assert asgi.delivery_bytes == proxy_limits.MIN_PROGRESS_BYTES
    assert proxy_limits.KEEP_ALIVE_SECONDS == KEEP_ALIVE_S
    assert proxy_limits.SPARE_CONNECTIONS == SPARE_CONNECTIONS
    rows = rows_of("operating.md", "## Connection limits")
    limits = {row[0].split(",")[0].split(";")[0]: row[1] for row in rows}
    assert limits["requests in progress"].endswith(f" {Settings().max_connections}")
    assert limits["all connections"].endswith(f"+ {SPARE_CONNECTIONS}")
    assert asgi.head_bytes == MAX_HEAD_BYTES
    assert limits["size of the request line and headers"] == f"{MAX_HEAD_BYTES:,} bytes"
    assert proxy_limits.Limits().queued_bytes == Settings().max_queued_bytes == 1_000_000_000
    assert limits["size of all request bodies together"].endswith(", 1 GB")
    assert limits["first byte of a connection"] == f"{asgi.head_s:g} s"
    assert limits["rest of a request head"] == f"{asgi.head_s:g} s"
    progress = f"{asgi.delivery_bytes:,} bytes per {asgi.delivery_s:g} s"
    assert limits["progress of a request body"] == progress
    assert limits["progress of the client reading the response"] == progress
    assert limits["idle time between requests"] == f"{KEEP_ALIVE_S} s"
