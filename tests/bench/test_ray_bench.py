"""Ray Serve beside the ASGI server, and the costs of servers, without a Ray."""

import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench import costs, installed
from bench.baselines.command import Figures
from bench.costs import Cost, memory_of
from bench.loadgen.generator import even_arrivals
from bench.ray.batches import FORWARD
from bench.ray.bodies import padded, write_bodies
from bench.ray.throughput import Case, report
from bench.worker_process import running_worker, unpack
from d2serve.servers.asgi.metrics import ServerMetrics
from d2serve.serving.metrics import Sample
from tests.bench.fake_server import Patch
from tests.goldens.cases import SAMPLES

JPEG = next(each for each in SAMPLES if each.suffix == ".jpg")
ALLOCATED = 50_000_000
CHILD = f'import sys; data = b"x" * {ALLOCATED}; print("ready", flush=True); sys.stdin.read()'
MIDDLE = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {CHILD!r}])"
# A process with an orphaned descendant, as Ray leaves them.
LEADER = f"""
import subprocess, sys
subprocess.run([sys.executable, '-c', {MIDDLE!r}], process_group=0)
sys.stdin.read()
"""


def test_bodies_have_exact_sizes_and_the_same_image(tmp_path: Path) -> None:
    files = write_bodies(tmp_path, JPEG, [2_000, 200_000])
    # The remainder behind the largest comment is too short for one of its own.
    content = padded(files[0].read_bytes(), 2_000 + 65_537 + 2)
    files.append(tmp_path / "remainder.jpg")
    files[-1].write_bytes(content)
    first, *others = (np.array(Image.open(file)) for file in files)
    assert [file.stat().st_size for file in files] == [2_000, 200_000, 67_539]
    assert all((first == other).all() for other in others)
    with pytest.raises(ValueError, match="size: received 2002, expected 2004 or more"):
        padded(files[0].read_bytes(), 2_002)


def test_even_arrivals() -> None:
    assert list(even_arrivals(4, 1.1)) == [0.25, 0.5, 0.75, 1.0]


def test_rates_are_compared_with_the_asgi_server_per_round() -> None:
    figures = {
        "ASGI server": [Figures(40.0, 26.0, 30.0), Figures(20.0, 52.0, 60.0)],
        "Ray Serve, HAProxy": [Figures(20.0, 50.0, 55.0), Figures(30.0, 34.0, 40.0)],
    }
    case = Case(2_000, figures)
    assert case.ratio("Ray Serve, HAProxy").values == (0.5, 1.5)
    table, _ = report([case])
    assert table.rows[1][:4] == (
        "2 kB",
        "Ray Serve, HAProxy",
        "25.0 (22.5..27.5)",
        "1.000 (0.750..1.250)",
    )


def test_batch_sizes_come_from_the_metrics() -> None:
    metrics = ServerMetrics()
    metrics.sink("shapes").publish(Sample("d2serve_forward_images", images) for images in (1, 6))
    assert FORWARD.findall(metrics.render()) == [(b"count", b"2.0"), (b"sum", b"7.0")]


def test_the_bare_loop_sends_one_of_its_images(
    shapes_mar: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("D2SERVE_WARM_UP_SIZES", "64x48")
    folder, [small] = unpack(shapes_mar, tmp_path / "model"), write_bodies(tmp_path, JPEG, [2_000])
    Image.new("RGB", (6000, 4000)).save(large := tmp_path / "large.jpg")
    # The two requests of a start carry the second and the third image.
    with running_worker(folder, [large, small, small]) as worker:
        peaks = {image: worker.run(1, 0.0, image=image).peak_mb for image in (1, 0)}
        decoded_mb = 6000 * 4000 * 3 / 1e6
        assert peaks[1] - worker.start.peak_mb < decoded_mb / 2 < peaks[0] - peaks[1]


def test_packages_of_an_extra(tmp_path: Path) -> None:
    declared = {
        "d2serve": ["base", 'server[fast]; extra == "web"', 'never; extra == "other"'],
        "base": [],
        "server": ["base", 'quick; extra == "fast"', 'slow; extra == "slow"'],
        "quick": ["not-installed"],
        "never": [],
        "slow": [],
    }
    for name, requires in declared.items():
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        lines = [f"Name: {name}", "Version: 1.0", *(f"Requires-Dist: {each}" for each in requires)]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
    known = {each.name: each for each in distributions(path=[str(tmp_path)])}
    found = installed.requirements(known, "d2serve", {"web"})
    assert set(found) == {"d2serve", "base", "server", "quick"}


def test_memory_includes_orphans_in_other_process_groups() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LEADER],
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as leader:
        assert leader.stdout
        assert leader.stdout.readline() == b"ready\n"
        memory = memory_of(leader.pid)
        leader.communicate()
    assert ALLOCATED < memory < 4 * ALLOCATED


def test_the_overhead_is_the_latency_beyond_the_bare_pipeline(monkeypatch: Patch) -> None:
    monkeypatch.setattr(costs, "extra_bytes", lambda *_: 2_600_000)
    measured = [Cost(400.0, 5.0, {"2 kB": 31.0}, {"2 kB": 30.0 - each}) for each in (0, 1, 2)]
    assert list(costs.rows_of({costs.ASGI: measured, costs.SAGEMAKER_RAY: measured})) == [
        ("memory at rest, all processes", "400 MB", "400 MB"),
        ("from the command to the first prediction", "5.0 s", "5.0 s"),
        ("overhead per request of 2 kB", "2.0 ms", "2.0 ms"),
        ("size of the packages of its extra", "3 MB", "the image's"),
    ]
