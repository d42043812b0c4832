"""What is made of a process's resident memory."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from bench.checkpoints import checkpoint_of
from bench.memory.measured import Measured, batch_of
from bench.memory.plot import plot_memory
from bench.memory.processes import bare_peak
from bench.memory.resident import Sample, peak, sampling, settled, slope
from bench.scale import picture_of
from tests.goldens.cases import TINY

MEGA = 1_000_000
GROWING = [Sample(done, (200 if done < 10 else 300 + done) * MEGA) for done in range(101)]


def test_the_slope_is_that_of_the_requests_after_the_first_tenth() -> None:
    calm = settled(GROWING, requests=100)
    assert [calm[0].done, calm[-1].done] == [10, 100]
    assert slope(calm) == pytest.approx(MEGA)
    assert slope(calm[:1]) == slope([]) == 0


def test_the_table_has_the_worker_beside_the_bare_model() -> None:
    measured = Measured("model", 4, 100, 250 * MEGA, GROWING)
    assert dict(measured.rows()) == {
        "bare model, peak at batch 4": "250",
        "worker, ready": "200",
        "worker, after a tenth of the requests": "314",
        "worker, at the end": "396",
        "worker, most": "400",
        "worker's most / bare": "1.60",
        "growth in 1,000 requests, after a tenth": "+1000.00",
    }
    assert len(Measured("model", 4, 0, 250 * MEGA, []).rows()) == 1
    assert (batch_of(4), batch_of(40)) == (4, 8)


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    plot_memory(Measured("model", 4, 100, 250 * MEGA, GROWING), tmp_path / "memory.png")
    with Image.open(tmp_path / "memory.png") as plot:
        assert len(plot.convert("RGB").getcolors(1 << 24) or []) > 10


def test_samples_show_what_is_held() -> None:
    with sampling(os.getpid(), done=lambda: 7, every_s=0.001) as samples:
        wait_for(samples)
        before = peak(samples)
        held = bytearray(b"a") * (200 * MEGA)
        wait_for(samples)
    assert peak(samples) - before > 150 * MEGA
    assert len(held) == 200 * MEGA
    assert samples[0].done == 7


def test_the_first_sample_is_taken_at_once_and_a_process_that_has_ended_gives_none() -> None:
    with sampling(os.getpid(), every_s=3600) as samples:
        assert len(samples) == 1
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with sampling(ended.pid, every_s=3600) as samples:
        assert peak(samples) == 0


def wait_for(samples: Sequence[Sample]) -> None:
    wanted = len(samples) + 3
    while len(samples) < wanted:
        time.sleep(0.001)


def test_the_bare_model_has_a_process_of_its_own(tmp_path: Path) -> None:
    [tiny] = [model for model in TINY if model.name == "mask_rcnn_r50"]
    picture = tmp_path / "picture.png"
    Image.fromarray(picture_of((60, 40))).save(picture)
    most = bare_peak(tiny, checkpoint_of(tiny, tmp_path), picture, 2, 1)
    assert 100 * MEGA < most < 2000 * MEGA
