"""Folders of varied images, some of them damaged."""

import io
import random
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageEnhance, ImageOps

SIDES = (96, 400)
BRIGHTNESS = (0.5, 1.5)
QUALITIES = (60, 95)
PER_FOLDER = 1000


class Images(NamedTuple):
    """Absolute paths of the images that can be processed, and of the damaged ones."""

    good: frozenset[str]
    bad: frozenset[str]


def write_images(
    folder: Path, samples: Path, count: int, bad_share: float = 0.0, seed: int = 0
) -> Images:
    """Write images of several sizes, brightnesses and formats into subfolders.

    Args:
        folder: is created.
        samples: folder of the images that they are made of.
        count: number of images.
        bad_share: the part of them that is truncated, text, empty or a link to nothing.
        seed: of the random choices.
    """
    draw = random.Random(seed)  # noqa: S311
    sources = [Image.open(path).convert("RGB") for path in sorted(samples.iterdir())]
    bad_places = set(draw.sample(range(count), round(count * bad_share)))
    good: set[str] = set()
    bad: set[str] = set()
    for place in range(count):
        suffix = draw.choice((".jpg", ".jpg", ".png"))
        path = folder.absolute() / f"{place // PER_FOLDER:03}" / f"{place:06}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        content = _encoded(draw.choice(sources), suffix, draw)
        if place in bad_places:
            _damage(path, content, draw)
        else:
            path.write_bytes(content)
        (bad if place in bad_places else good).add(str(path))
    return Images(frozenset(good), frozenset(bad))


def _encoded(source: Image.Image, suffix: str, draw: random.Random) -> bytes:
    image = source.resize((draw.randint(*SIDES), draw.randint(*SIDES)))
    image = ImageEnhance.Brightness(image).enhance(draw.uniform(*BRIGHTNESS))
    if draw.random() < 0.5:
        image = ImageOps.mirror(image)
    buffer = io.BytesIO()
    if suffix == ".png":
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.save(buffer, "JPEG", quality=draw.randint(*QUALITIES))
    return buffer.getvalue()


def _damage(path: Path, content: bytes, draw: random.Random) -> None:
    match draw.choice(("truncated", "text", "empty", "link")):
        case "truncated":
            path.write_bytes(content[: len(content) // 3])
        case "text":
            path.write_text("<html>not found</html>")
        case "empty":
            path.write_bytes(b"")
        case _:
            path.symlink_to("nowhere")
