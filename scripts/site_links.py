"""Check a built site: `python -m scripts.site_links out/site`.

Every link and anchor has to exist, and no page may load a file of another host. Links to other
hosts are listed, not requested.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Elements that make a browser request a file, and the attribute with its address.
LOADS = {"script": "src", "img": "src", "source": "src", "iframe": "src", "link": "href"}
# A `link` with another relation is not requested.
LOADED_RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch"}
CSS_ADDRESS = re.compile(r"(?:url\(|@import )\s*[\"']?([^\"')\s]+)")
# Served for addresses that do not exist; its own links start at the root.
NOT_FOUND_PAGE = "404.html"


@dataclass
class Contents(HTMLParser):
    """Addresses and anchors of a page.

    Attributes:
        loaded: addresses that the browser requests with the page.
        links: addresses of links.
        anchors: ids of its elements.
    """

    loaded: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record an element of the page."""
        values = {name: value for name, value in attrs if value}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        address = values.get(LOADS.get(tag, ""))
        if address and (tag != "link" or LOADED_RELATIONS & {*values.get("rel", "").split()}):
            self.loaded.append(address)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])


def read_site(site: Path) -> dict[Path, Contents]:
    """The contents of each page of a site."""
    pages = {}
    for path in sorted(site.rglob("*.html")):
        if path.name != NOT_FOUND_PAGE:
            pages[path] = Contents()
            pages[path].feed(path.read_text(encoding="utf-8"))
    return pages


def problems_of(site: Path, pages: dict[Path, Contents]) -> Iterator[str]:
    """Describe each broken link, missing anchor and file of another host."""
    for path, contents in pages.items():
        for address in dict.fromkeys(contents.loaded + contents.links):
            if problem := _problem(address, path, pages, is_loaded=address in contents.loaded):
                yield f"{path.relative_to(site)}: {address}: {problem}"
    for path in site.rglob("*.css"):
        for address in CSS_ADDRESS.findall(path.read_text(encoding="utf-8")):
            if _is_external(address):
                yield f"{path.relative_to(site)}: {address}: loaded from another host"


def external_links(pages: dict[Path, Contents]) -> list[str]:
    """The links to other hosts, sorted."""
    return sorted(
        {link for contents in pages.values() for link in contents.links if _is_external(link)}
    )


def main(site: Path) -> int:
    """Print the links to other hosts and the problems; return the exit code."""
    pages = read_site(site)
    problems = list(problems_of(site, pages))
    if not pages:
        problems.append(f"{site}: it has no pages; run `make docs`")
    print(*external_links(pages), sep="\n")
    print(*problems, sep="\n", file=sys.stderr)
    return 1 if problems else 0


def _problem(address: str, page: Path, pages: dict[Path, Contents], *, is_loaded: bool) -> str:
    """Reason why an address does not work, or an empty string."""
    if _is_external(address):
        return "loaded from another host" if is_loaded else ""
    parts = urlsplit(address)
    if parts.scheme:
        return "" if parts.scheme in {"mailto", "data"} else "unknown scheme"
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if target.is_dir():
        target /= "index.html"
    if not target.is_file():
        return "the file does not exist"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
        return "the anchor does not exist"
    return ""


def _is_external(address: str) -> bool:
    return address.startswith(("http://", "https://", "//"))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve()))
