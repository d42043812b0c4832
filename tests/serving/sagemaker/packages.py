"""Packages of the bundled model whose handler does as a test wants."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from d2serve.serving.integrity import SUMS_FILE

SERVICE = "handler.py"
MANIFEST = "MAR-INF/MANIFEST.json"


def repacked(package: Path, target: Path, files: Mapping[str, bytes]) -> Path:
    """The package with some of its files replaced or added, and so without the sums of all."""
    with tarfile.open(package) as source, tarfile.open(target, "w:gz") as changed:
        for member in source.getmembers():
            if member.name not in (*files, SUMS_FILE):
                changed.addfile(member, source.extractfile(member))
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            changed.addfile(entry, io.BytesIO(content))
    return target


def waiting_service(*, load: Path | None = None, forward: Path | None = None) -> bytes:
    """A handler that loads, or runs pictures, only once a file is there."""
    return f"""
import time
from pathlib import Path
from handler.service import Detectron2Handler

def wait_for(path):
    while path and not Path(path).exists():
        time.sleep(0.02)

class WaitingHandler(Detectron2Handler):
    def initialize(self, context):
        wait_for({str(load) if load else None!r})
        super().initialize(context)
        network = self.pipeline.detector.model
        run_now = network.forward

        def run(images, sizes_hw):
            Path({str(forward)!r} + ".begun").touch()
            wait_for({str(forward) if forward else None!r})
            return run_now(images, sizes_hw)

        network.forward = run
""".encode()
