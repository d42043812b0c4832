"""The file that holds every timing of a run, and from which tables and plots are made."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.contest import Result
from bench.timing import Timing
from scripts.errors import CommandError


@dataclass(frozen=True)
class Run:
    """What was timed, and where; `machine` is as `describe_machine` gives it."""

    machine: dict[str, Any]
    results: tuple[Result, ...]


def write_run(path: Path, run: Run) -> None:
    """Writes it as JSON."""
    content = {"machine": run.machine, "results": [asdict(result) for result in run.results]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_run(path: Path) -> Run:
    """Reads what `write_run` wrote.

    Raises:
        CommandError: it is not such a file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        results = tuple(_result(each) for each in content["results"])
        return Run(content["machine"], results)
    except FileNotFoundError:
        raise CommandError(f"{path} does not exist; `make bench` writes it") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CommandError(
            f"{path} is not what `make bench` writes ({error}); run it anew"
        ) from error


def _result(content: dict[str, Any]) -> Result:
    timings: Sequence[dict[str, Any]] = content["timings"]
    return Result(**{**content, "timings": tuple(_timing(each) for each in timings)})


def _timing(content: dict[str, Any]) -> Timing:
    parts = {name: tuple(seconds) for name, seconds in content["parts"].items()}
    return Timing(content["name"], tuple(content["seconds"]), parts)
