"""Runs the blocks of docs/tutorial.md in order.

The lines of `sh` blocks are commands; those of SERVERS run until the end of the page, as in a
terminal of their own. A block with a title is saved as that file. `bash` blocks install the
package, which tests/test_install.py does.
"""

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

import httpx

from d2serve.servers.torchserve.launcher.ports import LOOPBACK, Ports
from tests.docs_site.pages import Block, blocks_of, run, running

# Start of a server's command -> its documented port, the option of its port, and its health check.
SERVERS = {
    "d2serve serve": ("8080", "--port", "/ping"),
    "d2serve label-studio": ("9090", "--port", "/health"),
}


class Reader:
    """Follows the page in a folder, at free ports instead of the documented ones.

    Attributes:
        printed: what each command printed that is not a server.
    """

    def __init__(self, folder: Path, servers: ExitStack) -> None:
        ports = Ports.free()
        self.folder = folder
        self.ports = {"8080": str(ports.inference), "9090": str(ports.management)}
        self.printed: dict[str, str] = {}
        self._servers = servers

    def follow(self, block: Block) -> None:
        if block.title:
            (self.folder / block.title).write_text(self._at_free_ports(block.text))
        elif block.language == "sh":
            for command in block.commands:
                self._run(command)

    def url(self, documented_port: str, path: str) -> str:
        return f"http://{LOOPBACK}:{self.ports[documented_port]}{path}"

    def _run(self, command: str) -> None:
        actual = self._at_free_ports(command)
        for start, (port, option, health) in SERVERS.items():
            if command.startswith(start):
                server = f"{actual} {option} {self.ports[port]}"
                self._servers.enter_context(running(server, self.folder, self.url(port, health)))
                return
        if command.startswith("d2serve predict"):
            actual += f" --url {self.url('8080', '/invocations')}"
        self.printed[command] = run(actual.replace("curl ", "curl -sS "), self.folder)

    def _at_free_ports(self, text: str) -> str:
        for documented, actual in self.ports.items():
            text = text.replace(f"{LOOPBACK}:{documented}", f"{LOOPBACK}:{actual}")
        return text


def test_every_step_of_the_tutorial_works(repo_root: Path, tmp_path: Path) -> None:
    shutil.copytree(repo_root / "models" / "shapes", tmp_path / "models" / "shapes")
    with ExitStack() as servers:
        reader = Reader(tmp_path, servers)
        for block in blocks_of(repo_root / "docs" / "tutorial.md"):
            reader.follow(block)
        page = httpx.get(
            reader.url("8080", "/"), headers={"Accept": "text/html"}, timeout=60, trust_env=False
        )
    assert page.headers["content-type"].startswith("text/html")
    _assert_printed(reader.printed)
    _assert_results(tmp_path)


def _assert_printed(printed: dict[str, str]) -> None:
    archive, predict, request, prelabel, count, health = printed.values()
    assert "shapes.mar" in archive
    assert "shapes_01.jpg" in predict
    assert min(json.loads(request)["scores"]) >= 0.9
    assert "prelabels.json: 6 images" in prelabel
    assert "circle" in count
    assert json.loads(health)["status"] == "UP"


def _assert_results(folder: Path) -> None:
    samples = sorted(path.stem for path in (folder / "models/shapes/samples").iterdir())
    assert sorted(path.stem for path in (folder / "out").iterdir()) == samples
    dataset = json.loads((folder / "prelabels.json").read_text())
    assert sorted(Path(image["file_name"]).stem for image in dataset["images"]) == samples
    assert {len(annotation["segmentation"]) > 0 for annotation in dataset["annotations"]} == {True}
