"""Samples of a metrics port, and the metrics in a PromQL expression."""

import re
from collections import Counter
from collections.abc import Callable

import httpx

from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from tests.serving.served import read_until_written

# The name and the labels of a series, as text.
Series = str
LINE = re.compile(r"^(?P<name>\w+)\{(?P<labels>.*?),?\} (?P<value>\S+)$", re.MULTILINE)
TYPE = re.compile(r"^# TYPE (\w+) (\w+)$", re.MULTILINE)
# The only label that depends on the machine.
HOSTNAME = re.compile(r',Hostname="[^"]*"')
KEYWORDS = {"by", "without", "on", "ignoring", "and", "or", "unless", "bool", "offset"}


def scrape(ports: Ports) -> str:
    """The text that Prometheus reads."""
    response = httpx.get(f"http://{LOOPBACK}:{ports.metrics}/metrics", timeout=60, trust_env=False)
    assert response.is_success, response.text
    return response.text


def series_of(text: str) -> "Counter[Series]":
    """Values by name and labels, without the host's name."""
    return Counter(
        {
            f"{match['name']}{{{HOSTNAME.sub('', match['labels'])}}}": float(match["value"])
            for match in LINE.finditer(text)
        }
    )


def sum_of(series: "Counter[Series]", name: str) -> float:
    """A metric's value, summed over all labels."""
    return sum(value for key, value in series.items() if key.startswith(f"{name}{{"))


def names_of(text: str) -> set[str]:
    """All names that a query may use: a histogram has three."""
    names = set()
    for name, kind in TYPE.findall(text):
        suffixes = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        names |= {name + suffix for suffix in suffixes}
    return names


def names_in(expression: str) -> set[str]:
    """The metrics in a PromQL expression."""
    without_labels = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", expression)
    without_grouping = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", " ", without_labels)
    identifiers = re.findall(r"(?<![\w.])([A-Za-z_:][\w:]*)(?!\s*\()(?![\w:])", without_grouping)
    return set(identifiers) - KEYWORDS


def labels_in(expression: str) -> set[str]:
    """The labels that it selects or groups by."""
    selected = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression)
    grouped = re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", expression)
    return {*selected, *(name.strip() for names in grouped for name in names.split(","))}


def counted(
    ports: Ports, before: "Counter[Series]", enough: Callable[["Counter[Series]"], bool]
) -> "Counter[Series]":
    """The increase since `before`, once it is enough: the server counts after its response."""

    def added() -> "Counter[Series] | None":
        now = series_of(scrape(ports))
        now.subtract(before)
        return now if enough(now) else None

    increase = read_until_written(added)
    assert increase is not None
    return increase
