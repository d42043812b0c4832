"""The documentation site: it builds without warnings, and its links work without a network."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.site_links import external_links, main, problems_of, read_site
from tests.environment import clean_environment


@pytest.fixture(scope="module")
def site(repo_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    mkdocs = repo_root / ".venv-docs" / "bin" / "mkdocs"
    assert mkdocs.exists(), "run `make environments`"
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [mkdocs, "build", "--strict", "--site-dir", folder],
        cwd=repo_root,
        env=clean_environment() | {"NO_MKDOCS_2_WARNING": "1", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_links_and_anchors_exist_and_no_other_host_is_needed(site: Path) -> None:
    pages = read_site(site)
    assert list(problems_of(site, pages)) == []
    assert "https://github.com/facebookresearch/detectron2" in external_links(pages)


def test_every_page_and_the_files_outside_of_docs_are_on_the_site(
    repo_root: Path, site: Path
) -> None:
    pages = {page.stem for page in (repo_root / "docs").glob("*.md")}
    assert {page.stem for page in site.glob("*.html")} == pages | {
        *("index", "security", "model-card", "404")
    }
    dockerfile = "deploy/docker/Dockerfile"
    assert (site / "repository" / dockerfile).read_bytes() == (repo_root / dockerfile).read_bytes()


@pytest.fixture
def small_site(tmp_path: Path) -> Callable[[str], Path]:
    def write(body: str) -> Path:
        (tmp_path / "index.html").write_text(f"<body>{body}</body>")
        (tmp_path / "a.html").write_text('<p id="part">')
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('<a href="a.html#part">', None),
        ('<a href="https://example.org/">', None),
        ('<a href="mailto:a@example.org">', None),
        ('<link rel="canonical" href="https://example.org/">', None),
        ('<a href="b.html">', "the file does not exist"),
        ('<a href="a.html#other">', "the anchor does not exist"),
        ('<a href="#part">', "the anchor does not exist"),
        ('<img src="a.png">', "the file does not exist"),
        ('<img src="https://example.org/a.png">', "loaded from another host"),
        ('<script src="//example.org/a.js"></script>', "loaded from another host"),
        ('<link rel="stylesheet" href="https://example.org/a.css">', "loaded from another host"),
        ('<a href="javascript:alert(1)">', "unknown scheme"),
    ],
)
def test_problem(small_site: Callable[[str], Path], body: str, problem: str | None) -> None:
    site = small_site(body)
    problems = list(problems_of(site, read_site(site)))
    assert [found.rpartition(": ")[2] for found in problems] == ([problem] if problem else [])


def test_a_stylesheet_of_another_host_is_a_problem(small_site: Callable[[str], Path]) -> None:
    site = small_site("")
    (site / "site.css").write_text("a { background: url('https://example.org/a.png') }")
    assert list(problems_of(site, read_site(site))) == [
        "site.css: https://example.org/a.png: loaded from another host"
    ]


def test_an_empty_folder_fails(tmp_path: Path) -> None:
    assert main(tmp_path) == 1
