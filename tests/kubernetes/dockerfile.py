"""Read the instructions of a Dockerfile."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

JSON_FORM = ("ENTRYPOINT", "CMD", "HEALTHCHECK")
CONTINUED = re.compile(r"\\\n\s*")
COMMENT = re.compile(r"^\s*#.*\n", re.MULTILINE)


@dataclass(frozen=True)
class Dockerfile:
    """The instructions of a Dockerfile.

    Attributes:
        lines: name and arguments of each instruction, in order.
        commands: the words of ENTRYPOINT, CMD and HEALTHCHECK, by instruction.
    """

    lines: list[tuple[str, str]]
    commands: dict[str, list[str]]

    def all(self, name: str) -> list[str]:
        """The arguments of each instruction of a name."""
        return [arguments for each, arguments in self.lines if each == name]


def instructions_in(file: Path) -> Dockerfile:
    """Read a Dockerfile whose commands are JSON lists.

    Raises:
        ValueError: a command is a line for a shell, which would not pass signals on.
    """
    text = CONTINUED.sub("", COMMENT.sub("", file.read_text(encoding="utf-8")))
    lines = [(line.split(" ")[0], line.partition(" ")[2]) for line in text.splitlines() if line]
    commands = {
        name: json.loads(arguments[arguments.index("[") :])
        for name, arguments in lines
        if name in JSON_FORM
    }
    return Dockerfile(lines, commands)
