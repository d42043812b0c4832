"""Links of the documentation: every relative link and every anchor exists."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *(REPOSITORY / "docs").rglob("*.md"),
        REPOSITORY / "models" / "shapes" / "MODEL_CARD.md",
    ]
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*?) *$", re.MULTILINE)
CODE_BLOCK = re.compile(r"^```.*?^```$|^ {4}.*?$", re.MULTILINE | re.DOTALL)


def text_of(page: Path) -> str:
    """The page without code blocks."""
    return CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))


def links_of(page: Path) -> Iterator[tuple[Path, str]]:
    """Target file and anchor of every link that does not lead to another site."""
    for target in LINK.findall(text_of(page)):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            yield (page.parent / path if path else page), anchor


def anchors_of(page: Path) -> set[str]:
    """Anchors of the headings, as GitHub derives them."""
    anchors: set[str] = set()
    for heading in HEADING.findall(text_of(page)):
        anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        anchors.add(anchor if anchor not in anchors else f"{anchor}-1")
    return anchors


def test_the_pages_of_the_documentation_are_checked() -> None:
    names = {page.name for page in PAGES}
    assert {"README.md", "SECURITY.md", "api.md", "MODEL_CARD.md"} <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_and_anchor_exists(page: Path) -> None:
    for target, anchor in links_of(page):
        assert target.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors_of(target), f"{page.name}: {target.name}#{anchor}"


def test_every_page_is_linked_from_the_readme() -> None:
    linked = {target.resolve() for target, _ in links_of(REPOSITORY / "README.md")}
    assert set(PAGES) - linked == {REPOSITORY / "README.md"}


def test_anchors_follow_github(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# TorchServe's `/ping` (v1)\n\n```sh\n# a comment\n```\n", encoding="utf-8")
    assert anchors_of(page) == {"torchserves-ping-v1"}


def test_the_performance_data_is_complete() -> None:
    data = json.loads((REPOSITORY / "docs" / "performance-data.json").read_text(encoding="utf-8"))
    page = (REPOSITORY / "docs" / "performance.md").read_text(encoding="utf-8")
    for result in data["results"]:
        assert result["machine"] in data["machines"], result["id"]
        assert result["rows"], result["id"]
        assert f"`{result['id']}`" in page, result["id"]
