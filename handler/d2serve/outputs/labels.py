"""Texts of labels in overlays: readable with the fonts at hand, on one line, short enough."""

import io
import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from PIL import ImageFont

from d2serve.errors import ClassNamesError
from d2serve.metadata import Labels
from d2serve.outputs.drawing import Font, label_size

# In the model folder of an archive, if a class name has characters beyond ASCII.
LABELS_FILE = "labels.json"
LABEL_FONT_FILE = "labels.ttf"
# No image is wide enough for more characters, and Pillow draws at most a million.
MAX_CHARACTERS = 200
ELLIPSIS = "..."


class LabelFonts:
    """The fonts for the labels of one image.

    Pillow's own draws ASCII; the archive's draws texts with other characters. The archive's font
    needs no shaping and is drawn without it, so that all builds of Pillow draw the same.
    """

    def __init__(self, size_hw: tuple[int, int], labels: Labels) -> None:
        self._size = label_size(size_hw)
        self._labels = labels
        self._fonts: dict[bool, Font] = {}

    def of(self, text: str) -> Font:
        """The font that draws the text."""
        is_plain = text.isascii()
        if is_plain not in self._fonts:
            self._fonts[is_plain] = self._load(is_plain)
        return self._fonts[is_plain]

    def _load(self, is_plain: bool) -> Font:
        if is_plain or self._labels.font is None:
            return ImageFont.load_default(self._size)
        return load_font(self._labels.font, self._size)


def load_font(content: bytes, size: int) -> Font:
    """Open a TrueType file without text shaping.

    Raises:
        OSError: it is damaged.
    """
    return ImageFont.truetype(io.BytesIO(content), size, layout_engine=ImageFont.Layout.BASIC)


def read_labels(folder: Path) -> Labels:
    """Read the label texts and their font from a model folder; empty if there are none.

    Raises:
        ClassNamesError: a file cannot be read or has another content.
    """
    texts_file, font_file = folder / LABELS_FILE, folder / LABEL_FONT_FILE
    if not texts_file.is_file():
        return Labels()
    try:
        texts = _read_texts(texts_file)
        font = font_file.read_bytes() if font_file.is_file() else None
        if font is not None:
            _check_drawable(font, texts)
    except (OSError, ValueError, RecursionError) as error:
        raise ClassNamesError(f"labels of the class names cannot be read: {error}") from error
    if font is None and not "".join(texts.values()).isascii():
        raise ClassNamesError(
            f"{LABELS_FILE} has characters beyond ASCII, but {LABEL_FONT_FILE}, which draws them, "
            "is missing; build the archive again with `d2serve archive`"
        )
    return Labels(texts, font)


def _read_texts(file: Path) -> dict[str, str]:
    """The label of each class name, on one line."""
    texts = json.loads(file.read_text(encoding="utf-8-sig"))
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise ClassNamesError(f"{LABELS_FILE} is not an object of class names and their labels")
    return {name: one_line(text) for name, text in texts.items()}


def _check_drawable(content: bytes, texts: Mapping[str, str]) -> None:
    """Draw each character once; a damaged font may open and fail then.

    Raises:
        OSError: the font is damaged.
    """
    font = load_font(content, size=10)
    for character in {character for text in texts.values() for character in text}:
        font.getmask(character)


def drawn_name(name: str, class_index: int, labels: Labels) -> str:
    """The class name as overlays show it: as the archive says, else in ASCII, else the index.

    Examples:
        >>> [drawn_name(name, 3, Labels()) for name in ("traffic light", "naïve", "圆")]
        ['traffic light', 'naive', 'class 3']
    """
    text = labels.texts.get(name)
    if text is None:
        plain = _without_accents(one_line(name))
        text = plain if plain.isascii() else ""
    return text if text.strip() else f"class {class_index}"


def one_line(name: str) -> str:
    """The first characters, composed (NFC), with spaces for control characters.

    Printable ASCII stays unchanged. Characters that only affect layout, halves of surrogate pairs
    and unassigned characters are removed.

    Examples:
        >>> one_line("stop\\nsign"), one_line("e\u0301tage\u200b")
        ('stop sign', 'étage')
    """
    start = name[:MAX_CHARACTERS]
    if start.isascii() and start.isprintable():
        return start
    spaced = "".join(_printable(character) for character in unicodedata.normalize("NFC", start))
    return " ".join(spaced.split())


def fitted(name: str, suffix: str, font: Font, width: int) -> str:
    """The name and the suffix; the name is shortened if both are wider than `width` pixels.

    The complete text is returned if not even one character of the name fits.
    """
    if font.getlength(name + suffix) <= width:
        return name + suffix
    shortened, too_long = 0, len(name)
    while too_long - shortened > 1:
        middle = (shortened + too_long) // 2
        if font.getlength(name[:middle] + ELLIPSIS + suffix) <= width:
            shortened = middle
        else:
            too_long = middle
    return (name[:shortened] + ELLIPSIS if shortened else name) + suffix


def _printable(character: str) -> str:
    category = unicodedata.category(character)
    if category.startswith("Z") or category == "Cc":
        return " "
    return "" if category.startswith("C") else character


def _without_accents(text: str) -> str:
    if text.isascii():
        return text
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(each for each in decomposed if not unicodedata.category(each).startswith("M"))
