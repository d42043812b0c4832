from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from d2serve.client.folder import Outcome, outcome_table

ERROR = {"code": "bad_request", "message": "truncated", "hint": "send all of it"}
NOTHING: dict[str, Any] = {"names": [], "scores": [], "boxes": []}
HORSE = {"names": ["horse"], "scores": [0.98765], "boxes": [[1.04, 2, 30.25, 40]]}


def rows(*outcomes: Outcome) -> list[list[str]]:
    console = Console(width=200)
    with console.capture() as printed:
        console.print(outcome_table(outcomes))
    lines = [line for line in printed.get().splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome(Path("a"), NOTHING), [["a", "(nothing found)", "", ""]]),
        (Outcome(Path("a"), HORSE), [["a", "horse", "0.988", "1.0 2.0 30.2 40.0"]]),
        (Outcome(Path("a"), error=ERROR), [["a", "error: bad_request", "", "truncated"]]),
        (
            Outcome(Path("[red]a"), {"predictions": [NOTHING, {"error": ERROR}]}),
            [
                ["[red]a [0]", "(nothing found)", "", ""],
                ["[red]a [1]", "error: bad_request", "", "truncated"],
            ],
        ),
    ],
)
def test_table(outcome: Outcome, expected: list[list[str]]) -> None:
    assert rows(outcome) == expected


@pytest.mark.parametrize(
    ("outcome", "failed"),
    [
        (Outcome(Path("a"), NOTHING), False),
        (Outcome(Path("a"), error=ERROR), True),
        (Outcome(Path("a"), {"predictions": [HORSE, NOTHING]}), False),
        (Outcome(Path("a"), {"predictions": [HORSE, {"error": ERROR}]}), True),
    ],
)
def test_failed(outcome: Outcome, failed: bool) -> None:
    assert outcome.failed is failed


def test_as_json() -> None:
    assert Outcome(Path("a"), HORSE).as_json() == {"file": "a", "answer": HORSE}
    assert Outcome(Path("a"), error=ERROR).as_json() == {"file": "a", "error": ERROR}
