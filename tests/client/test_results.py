from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from d2serve.client.folder import FileResult, result_table

ERROR = {"code": "bad_request", "message": "truncated", "hint": "send all of it"}
NOTHING: dict[str, Any] = {"names": [], "scores": [], "boxes": []}
HORSE = {"names": ["horse"], "scores": [0.98765], "boxes": [[1.04, 2, 30.25, 40]]}


def rows(*results: FileResult) -> list[list[str]]:
    console = Console(width=200)
    with console.capture() as printed:
        console.print(result_table(results))
    lines = [line for line in printed.get().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (FileResult(Path("a"), NOTHING), [["a", "(no detections)", "", ""]]),
        (FileResult(Path("a"), HORSE), [["a", "horse", "0.988", "1.0 2.0 30.2 40.0"]]),
        (FileResult(Path("a"), error=ERROR), [["a", "error: bad_request", "", "truncated"]]),
        (
            FileResult(Path("[red]a"), {"predictions": [NOTHING, {"error": ERROR}]}),
            [
                ["[red]a [0]", "(no detections)", "", ""],
                ["[red]a [1]", "error: bad_request", "", "truncated"],
            ],
        ),
    ],
)
def test_table(result: FileResult, expected: list[list[str]]) -> None:
    assert rows(result) == expected


@pytest.mark.parametrize(
    ("result", "failed"),
    [
        (FileResult(Path("a"), NOTHING), False),
        (FileResult(Path("a"), error=ERROR), True),
        (FileResult(Path("a"), {"predictions": [HORSE, NOTHING]}), False),
        (FileResult(Path("a"), {"predictions": [HORSE, {"error": ERROR}]}), True),
    ],
)
def test_failed(result: FileResult, failed: bool) -> None:
    assert result.failed is failed


def test_as_json() -> None:
    assert FileResult(Path("a"), HORSE).as_json() == {"file": "a", "answer": HORSE}
    assert FileResult(Path("a"), error=ERROR).as_json() == {"file": "a", "error": ERROR}


def test_response_of_another_route_is_an_error_of_its_image() -> None:
    result = FileResult(Path("a"), {"status": "Healthy"})
    assert result.failed
    [[_, label, _, message]] = rows(result)
    assert label == "error: no_prediction"
    assert "use the URL of a prediction route" in message
