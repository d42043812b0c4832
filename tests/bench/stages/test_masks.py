import pytest

from bench import masks
from handler.outputs.segmentations import segmentations


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "SIZES_HW", ((30, 40), (20, 10)))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("present", [True, False], ids=["with-the-peer", "without-it"])
def test_each_size_is_timed(present: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "find_spec", lambda _: object() if present else None)
    monkeypatch.setattr(masks, "_upstream", lambda found: segmentations(found, "rle"))
    found = list(masks.comparisons(rounds=2))
    assert [each.size_hw for each in found] == [(30, 40), (20, 10)]
    for each in found:
        timings = [each.ours, each.polygons, *([each.peer] if each.peer else [])]
        assert [len(timing.seconds) for timing in timings] == [2, 2, *([2] if present else [])]


@pytest.mark.usefixtures("small")
def test_another_answer_than_the_peers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "find_spec", lambda _: object())
    monkeypatch.setattr(masks, "_upstream", lambda _: [])
    with pytest.raises(RuntimeError, match="the RLE of ours and detectron2"):
        next(masks.comparisons(rounds=1))


@pytest.mark.usefixtures("small")
def test_the_table_says_why_the_peer_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(masks, "find_spec", lambda _: None)
    monkeypatch.setattr("sys.argv", ["bench.masks", "1"])
    masks.main()
    printed = capsys.readouterr().out
    assert "40x30" in printed
    assert printed.count("left out, as detectron2 is not installed") == 2
