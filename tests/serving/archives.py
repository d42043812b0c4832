"""Archives and packages of the bundled model with altered files."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from d2serve.building.packing import sums_of
from d2serve.serving.integrity import SUMS_FILE, format_sums

HANDLER = "handler.py"
WEIGHTS = "model/weights.pt"


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack an archive; return the folder."""
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    return folder


def alter(folder: Path, files: Mapping[str, str]) -> None:
    """Replace or add files of an unpacked archive and update its sums."""
    for name, text in files.items():
        (folder / name).write_text(text)
    contents = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    (folder / SUMS_FILE).write_text(format_sums(sums_of(contents)))


def repack(package: Path, target: Path, files: Mapping[str, bytes]) -> Path:
    """Copy a package with some of its files replaced or added, and with updated sums."""
    with tarfile.open(package) as source:
        contents = {
            member.name: extracted.read()
            for member in source.getmembers()
            if (extracted := source.extractfile(member))
        }
    contents |= files
    contents[SUMS_FILE] = format_sums(sums_of(contents)).encode()
    with tarfile.open(target, "w:gz") as altered:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            altered.addfile(entry, io.BytesIO(content))
    return target


def waiting_handler(*, load: Path | None = None, forward: Path | None = None) -> bytes:
    """The code of a handler that loads, or runs a forward pass, only once a file exists."""
    return f"""
import time
from pathlib import Path
from d2serve.servers.torchserve.handler import Detectron2Handler

def wait_for(path):
    while path and not Path(path).exists():
        time.sleep(0.02)

class WaitingHandler(Detectron2Handler):
    def initialize(self, context):
        wait_for({str(load) if load else None!r})
        super().initialize(context)
        network = self.pipeline.detector.model
        run_now = network.forward

        forward = {str(forward) if forward else None!r}

        def run(images, sizes_hw):
            Path(forward + ".begun").touch()
            wait_for(forward)
            return run_now(images, sizes_hw)

        if forward:
            network.forward = run
""".encode()
