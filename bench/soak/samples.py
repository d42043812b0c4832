"""The pictures of a soak, the forms of their answers, and what is to be found in each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from bench.load.requests import KEPT, Request
from bench.soak.expected import Drawn, Read
from bench.soak.found import (
    TO_ANSWER,
    TO_GOLDEN,
    Found,
    Size,
    Tolerance,
    difference,
    read_clarify,
    read_coco,
    read_default,
    read_golden,
    read_npy,
)
from scripts.errors import CommandError
from scripts.pictures import content_type_of
from tests.goldens.cases import ANSWERS

ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
JSON, PNG, NPY = "application/json", "image/png", "application/x-npy"
# The form of the answer by name: the request's headers, and what takes the answer apart.
FORMS: Mapping[str, tuple[Mapping[str, str], Read]] = {
    "json": ({"Accept": JSON}, read_default),
    "coco": ({"Accept": JSON, ATTRIBUTES: "format=coco"}, read_coco),
    "clarify": ({"Accept": JSON, ATTRIBUTES: "format=clarify"}, read_clarify),
    "npy": ({"Accept": NPY}, read_npy),
}
DRAWN = {"Accept": PNG}
# Answers a request when nothing else is asked.
Ask = Callable[[Request], bytes]


@dataclass(frozen=True)
class Sample:
    """A picture, and what is to be found in it.

    Attributes:
        file: as it is sent.
        size_wh: upright, in pixels.
        found: upstream's golden where there is one for this model, else the quiet server's answer.
        tolerance: of answers.
        drawn: the quiet server's picture.
    """

    file: Path
    size_wh: Size
    found: Found
    tolerance: Tolerance
    drawn: Drawn


def samples_of(pictures: Sequence[Path], model_name: str, ask: Ask) -> list[Sample]:
    """Each picture with what is to be found in it.

    Args:
        pictures: files.
        model_name: decides which goldens there are.
        ask: of a server that does nothing else.

    Raises:
        CommandError: two pictures have the same answer, so that an answer to the wrong client could
            not be told.
    """
    samples = [_sample(picture, model_name, ask) for picture in pictures]
    _check_that_they_differ(samples)
    return samples


def request_for(
    picture: Path,
    form: str,
    file: Path,
    content_type: str,
    headers: Mapping[str, str],
    manner: str = KEPT,
) -> Request:
    """A request with a picture, whose name tells the way and the form of the answer."""
    name = f"{picture} as {content_type} -> {form}"
    fields = {**headers, "Content-Type": content_type}
    return Request(name, str(file.resolve()), fields, manner)


def upright(picture: Path) -> Image.Image:
    """The picture in RGB, as it is to be looked at.

    Raises:
        CommandError: Pillow cannot read it.
    """
    try:
        with Image.open(picture) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except UnidentifiedImageError:
        raise CommandError(f"{picture} cannot be read by Pillow; take other PICTURES") from None


def _sample(picture: Path, model_name: str, ask: Ask) -> Sample:
    plain = request_for(picture, "json", picture, content_type_of(picture), FORMS["json"][0])
    drawn = request_for(picture, "drawn", picture, content_type_of(picture), DRAWN)
    size_wh = upright(picture).size
    golden = ANSWERS / f"{model_name}-{picture.stem}.json"
    found = read_golden(golden) if golden.exists() else read_default(ask(plain), size_wh)
    tolerance = TO_GOLDEN if golden.exists() else TO_ANSWER
    return Sample(picture, size_wh, found, tolerance, Drawn(ask(drawn)))


def _check_that_they_differ(samples: Sequence[Sample]) -> None:
    for one in samples:
        for other in samples:
            same = not difference(one.found, other.found, one.tolerance)
            if one is not other and (same or not one.drawn.fault(other.drawn.body)):
                raise CommandError(
                    f"{one.file.name} and {other.file.name} have the same answer, so that a mix-up "
                    "could not be told; take other PICTURES"
                )
