"""The results of a request -> JSON, or JSON Lines."""

from collections.abc import Sequence

from handler.errors import RequestError
from handler.outputs.formats.result import Result
from handler.outputs.formats.table import Entry, Format, as_predictions
from handler.outputs.json_text import json_bytes


def plain_body(results: Sequence[Result | RequestError], chosen: Format) -> bytes:
    """One picture's entry as it is; those of several joined as the format wants it."""
    entries = _entries(results, chosen)
    return json_bytes(entries[0] if len(entries) == 1 else chosen.join(entries))


def batch_body(results: Sequence[Result | RequestError], chosen: Format) -> bytes:
    """As of several pictures where the format keeps batches, of a single one too."""
    if chosen.keeps_batches:
        return json_bytes(chosen.join(_entries(results, chosen)))
    return plain_body(results, chosen)


def instances_body(results: Sequence[Result | RequestError], chosen: Format) -> bytes:
    """KServe v1's {"predictions": [...]} with one entry per picture, a single one too."""
    return json_bytes(as_predictions(_entries(results, chosen)))


def lines_body(results: Sequence[Result | RequestError], chosen: Format) -> bytes:
    """One object a line and one line a picture; an entry that is a list as its `prediction`."""
    return b"".join(json_bytes(_as_object(entry)) + b"\n" for entry in _entries(results, chosen))


def _entries(results: Sequence[Result | RequestError], chosen: Format) -> list[Entry]:
    """Errors stay in their places."""
    return [
        result.body() if isinstance(result, RequestError) else chosen.entry(result)
        for result in results
    ]


def _as_object(entry: Entry) -> Entry:
    return {"prediction": entry} if isinstance(entry, list) else entry
