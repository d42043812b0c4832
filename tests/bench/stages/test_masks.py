import pytest
import torch

from bench.contest import OURS
from bench.scale import quick_scale
from bench.stages import masks
from d2serve.outputs.result import segmentations

SCALE = quick_scale(torch.device("cpu"), ("fp32",))


@pytest.mark.parametrize("present", [True, False], ids=["with-the-peer", "without-it"])
def test_each_size_has_its_contestants(present: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.upstream.installed", lambda: present)
    monkeypatch.setattr(masks, "_upstream", lambda found: segmentations(found, "rle"))
    contests = list(masks.contests(SCALE))
    assert [contest.case for contest in contests] == ["5 masks, 160x120", "5 masks, 120x160"]
    for contest in contests:
        peer = [masks.PEER] if present else []
        assert list(contest.contestants) == [OURS, masks.POLYGONS, *peer]
        assert contest.contestants[OURS].run() != contest.contestants[masks.POLYGONS].run()


def test_another_answer_than_the_peers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.upstream.installed", lambda: True)
    monkeypatch.setattr(masks, "_upstream", lambda _: [])
    with pytest.raises(RuntimeError, match="160x120: the RLE of d2serve and detectron2"):
        next(masks.contests(SCALE))
