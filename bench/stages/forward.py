"""One picture through the network, part by part, beside upstream's.

Upstream does not paste its masks into the picture here, because our network leaves that to the
encoder. What either finds is compared, and told in the note.
"""

from collections.abc import Iterator

from bench import upstream
from bench.contest import DETECTRON2, OURS, Contest, Contestant
from bench.parts import PartClock
from bench.scale import Scale, picture_of
from handler.detections import Detections
from handler.detector.native import NativeDetector
from handler.pictures import Picture
from tests.goldens.comparison import compare

STAGE = "forward"
PARTS = ("resize", "backbone", "proposals", "boxes", "masks", "rest")


def contests(scale: Scale) -> Iterator[Contest]:
    """One for each precision; upstream computes in float32 beside all of them."""
    picture = picture_of(scale.picture_wh)
    for model in scale.models:
        peer = upstream.Upstream(model, scale.device) if upstream.installed() else None
        for precision in scale.precisions:
            detector = scale.detector(model, precision)
            contestants = {OURS: _ours(detector, picture)}
            if peer is not None:
                contestants[DETECTRON2] = _theirs(peer, picture)
            note = _note(detector, picture, None if scale.device.type == "cuda" else peer)
            yield Contest(STAGE, precision, contestants, model.name, note=note)


def _ours(detector: NativeDetector, picture: Picture) -> Contestant:
    clock = PartClock()
    clock.follow(detector.model)

    def run() -> None:
        clock.start()
        detector.detect([picture])
        clock.end_of("rest")

    return Contestant(run, clock.laps)


def _theirs(peer: "upstream.Upstream", picture: Picture) -> Contestant:
    clock = PartClock()
    clock.follow(peer.model)

    def run() -> None:
        clock.start()
        peer.detect(picture)
        clock.end_of("rest")

    return Contestant(run, clock.laps)


def _note(detector: NativeDetector, picture: Picture, peer: "upstream.Upstream | None") -> str:
    [outcome] = detector.detect([picture])
    assert isinstance(outcome.found, Detections)
    count = f"{len(outcome.found)} detections"
    if peer is None:
        return count
    same = compare(peer.golden.predict(picture), outcome.found)
    return (
        f"{count}; of {same.expected} of {DETECTRON2}'s {same.matched} are found, boxes differ by "
        f"{same.box_error_px:.4f} px at most, scores by {same.score_error:.6f}, the least mask IoU "
        f"is {1.0 if same.mask_iou is None else same.mask_iou:.4f}"
    )
