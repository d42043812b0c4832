"""Hook of MkDocs: pages from outside `docs`, and links that lead out of it.

The same Markdown is read on GitHub, where links are relative to the file. On the site README.md is
the front page, and files of the repository are copied to `repository/`.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = "docs"
# Page of the site -> its file in the repository.
PAGES = {
    "index.md": "README.md",
    "security.md": "SECURITY.md",
    "model-card.md": "models/shapes/MODEL_CARD.md",
}
SITE_OF = {source: page for page, source in PAGES.items()}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|!?\[[^\]]*\])*)\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages from outside `docs`, and the files of the repository that pages link to."""
    for page, source in PAGES.items():
        content = (REPOSITORY / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=content))
    for page in list(files.documentation_pages()):
        for _, _, target, _ in LINK.findall(page.content_string):
            _add_file(files, _in_repository(page.src_uri, target), config)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make the page's links relative to its place on the site."""
    return LINK.sub(lambda link: _site_link(link, page.file.src_uri), markdown)


def _add_file(files: Files, path: str, config: MkDocsConfig) -> None:
    uri = _on_site(path)
    if (REPOSITORY / path).is_file() and files.get_file_from_path(uri) is None:
        files.append(File.generated(config, uri, content=(REPOSITORY / path).read_bytes()))


def _site_link(link: re.Match[str], page: str) -> str:
    """The link on the site; a folder of the repository is not there, and remains as text."""
    image, text, target, anchor = link.groups()
    path = _in_repository(page, target)
    if (REPOSITORY / path).is_dir():
        return text
    return f"{image}[{text}]({_on_site(path)}{anchor or ''})"


def _in_repository(page: str, target: str) -> str:
    """Path in the repository of a link's target."""
    source = PAGES.get(page, f"{DOCS}/{page}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def _on_site(path: str) -> str:
    """Path on the site of a file of the repository; pages are in the site's root."""
    inside = path.removeprefix(f"{DOCS}/")
    return SITE_OF.get(path, inside if inside != path else f"repository/{path}")
