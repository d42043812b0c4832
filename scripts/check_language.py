"""Check the wording of docstrings, comments and documentation: `python -m scripts.check_language`.

The project uses the field's standard terms in plain technical English. Ruff checks the presence of
docstrings; this script checks their words.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SOURCES = ("handler", "bench", "scripts", "models", "tests")
DOCUMENTS = ("README.md", "SECURITY.md", "docs", "models")
# Where the banned phrases themselves are listed and tested.
EXEMPT = ("scripts/check_language.py", "tests/scripts/test_check_language.py")

# Phrase -> what to write instead. Matched without regard to case, at word boundaries.
BANNED = {
    r"pictures?": "image",
    r"front doors?": "reverse proxy",
    r"behind a door": "behind the proxy",
    r"nobody|somebody": "name the component or the user",
    r"whoever|whichever": "name the component or the user",
    r"so many": "the number itself, or `n`",
    r"as it must be|as they must be": "name the requirement",
    r"of which": "two sentences",
    r"(?<!there )is no [a-z]+": "is not a ...",
    r"none of (?:them|these|its|the|it)": "no ...",
    r"that there is": "existing",
    r"hung up|hangs? up": "disconnected",
    r"waits? for company": "waits for a batch to fill",
    r"last words": "final response",
    r"patience": "deadline",
    r"misfits?": "mismatch",
    r"departures?": "disconnects",
    r"verdicts?": "checks",
    r"contests?": "benchmark",
    r"(?:tells?|says?|said|hears?|heard) (?:that|what|whether|how|which|where|why|of|so)\b": (
        "report, return, state, receive"
    ),
}
# A docstring's first line states what the thing is or does.
HEADLESS = re.compile(r"(?:What|Which|How|Where|Who|Whoever|Whether|Why)\b")
PATTERN = re.compile("|".join(rf"\b(?:{phrase})\b" for phrase in BANNED), re.IGNORECASE)


@dataclass(frozen=True)
class Text:
    """A docstring, comment or line of a document.

    Attributes:
        line: number of its first line, from 1.
        content: the words.
        is_docstring: whether the first line has to state what the thing is.
    """

    line: int
    content: str
    is_docstring: bool = False


@dataclass(frozen=True)
class Finding:
    """A phrase to replace."""

    line: int
    phrase: str
    advice: str


def find_banned(texts: Iterable[Text]) -> Iterator[Finding]:
    """Find banned phrases and headless first lines.

    Examples:
        >>> [finding.advice for finding in find_banned([Text(1, "Decode a picture.")])]
        ['image']
    """
    for text in texts:
        if text.is_docstring and (headless := HEADLESS.match(text.content)):
            yield Finding(text.line, headless[0], "start with a verb or a noun phrase")
        for match in PATTERN.finditer(text.content):
            line = text.line + text.content[: match.start()].count("\n")
            yield Finding(line, match[0], _advice(match[0]))


def python_texts(source: str) -> Iterator[Text]:
    """Yield the docstrings and comments of a Python module."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and (docstring := ast.get_docstring(node, clean=False)):
            yield Text(node.body[0].lineno, docstring, is_docstring=True)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text(token.start[0], token.string)


def document_texts(source: str) -> Iterator[Text]:
    """Yield the lines of a Markdown document outside code blocks."""
    fenced = False
    for number, line in enumerate(source.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield Text(number, line)


def check(root: Path) -> list[str]:
    """Return one line `path:line: message` for each finding in the repository at `root`."""
    sources = (path for folder in SOURCES for path in sorted((root / folder).rglob("*.py")))
    documents = (path for name in DOCUMENTS for path in _documents(root / name))
    texts = [*((path, python_texts) for path in sources), *((p, document_texts) for p in documents)]
    return [
        f"{path.relative_to(root)}:{finding.line}: {finding.phrase!r}: {finding.advice}"
        for path, read in texts
        if path.relative_to(root).as_posix() not in EXEMPT
        for finding in find_banned(read(path.read_text(encoding="utf-8")))
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the findings; return 1 where there are any."""
    given = sys.argv[1:] if arguments is None else arguments
    findings = check(Path(given[0] if given else "."))
    print("\n".join(findings) or "wording: no findings")
    return int(bool(findings))


def _documents(path: Path) -> list[Path]:
    return sorted(path.rglob("*.md")) if path.is_dir() else [path][: path.exists()]


def _advice(found: str) -> str:
    return next(
        advice
        for phrase, advice in BANNED.items()
        if re.fullmatch(rf"(?:{phrase})", found, re.IGNORECASE)
    )


if __name__ == "__main__":
    sys.exit(main())
