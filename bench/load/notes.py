"""The file in which a load generator notes what happens, line by line as it does.

So a run that is broken off leaves what there was until then. A list is an `Answer`, an object holds
facts of the whole run.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.load.answers import Answer

BEGAN_AT, CPU_S = "began_at", "cpu_s"


@dataclass(frozen=True)
class Noted:
    """What was noted.

    Attributes:
        answers: in the order in which they were complete; those never answered last.
        began_at: seconds since 1970 at which the measured window began.
        cpu_s: the generator's own CPU time within it; None where the run was broken off.
    """

    answers: Sequence[Answer]
    began_at: float
    cpu_s: float | None


class Notebook:
    """Writes the notes, and each distinct body once.

    Args:
        notes: the file.
        bodies: the folder; None keeps no bodies.
    """

    def __init__(self, notes: Path, bodies: Path | None) -> None:
        notes.write_text("", encoding="utf-8")
        self._notes = notes
        self._bodies = bodies
        self._kept: set[str] = set()

    def answer(self, answer: Answer) -> None:
        """One request, which is done or will never be."""
        self._add(answer)

    def fact(self, name: str, value: float) -> None:
        """BEGAN_AT or CPU_S."""
        self._add({name: value})

    def keep(self, body: bytes) -> str:
        """The body's digest, under which it is kept; "" where none is."""
        if self._bodies is None:
            return ""
        digest = hashlib.sha256(body).hexdigest()
        if digest not in self._kept:
            (self._bodies / digest).write_bytes(body)
            self._kept.add(digest)
        return digest

    def _add(self, row: Answer | dict[str, float]) -> None:
        # Closed after each line, so that a reader has all that is there.
        with self._notes.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def read_notes(path: Path) -> Noted | None:
    """What has been noted so far; None if the run had not begun."""
    # A writer that is ended leaves half a line.
    *lines, _ = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
    rows = [json.loads(line) for line in lines]
    facts = {name: value for row in rows if isinstance(row, dict) for name, value in row.items()}
    if BEGAN_AT not in facts:
        return None
    answers = [Answer(*row) for row in rows if isinstance(row, list)]
    return Noted(answers, facts[BEGAN_AT], facts.get(CPU_S))
