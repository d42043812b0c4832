"""A font of a few kilobytes with the characters of a model's class names, for overlays.

Containers may lack fonts. The outlines are those of Noto Sans and Noto Sans CJK (SIL Open Font
License 1.1), which only the build needs.
"""

import io
import json
import string
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from anyascii import anyascii
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.cu2quPen import Cu2QuPen
from fontTools.pens.recordingPen import DecomposingRecordingPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont

from d2serve.metadata import ClassNames
from d2serve.outputs.labels import LABEL_FONT_FILE, LABELS_FILE, one_line

# Package and file of each font; the first one that has a character provides it.
SOURCES = (
    ("fontpkg_noto_sans", "files/NotoSans[wdth,wght].ttf"),
    ("noto_cjk_sans_jp_regular", "NotoSansCJKjp-Regular.otf"),
)
# The first words of the Unicode names of letters that are drawn one by one from left to right.
# Those of other scripts join, stack or run from right to left.
SIMPLE_SCRIPTS = (
    *("LATIN", "GREEK", "CYRILLIC", "CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"),
    *("FULLWIDTH", "HALFWIDTH", "IDEOGRAPHIC", "KATAKANA-HIRAGANA", "MICRO", "MODIFIER"),
)
ASCII = string.printable[:95]
UNITS_PER_EM = 1000
# 1980-01-01 in seconds since 1904, so that the bytes depend on the characters only.
NO_TIME = 2398377600
ASCENT, DESCENT = 1069, -293
# In units, where curves of the third degree become those of the second.
MAX_ERROR = 1.0
NAMES = {
    "familyName": "Labels of class names",
    "styleName": "Regular",
    "copyright": "Copyright 2022 The Noto Project Authors "
    "(https://github.com/notofonts/latin-greek-cyrillic); "
    "2014-2021 Adobe (http://www.adobe.com/)",
    "licenseDescription": "This Font Software, a modified version of Noto Sans and Noto Sans CJK, "
    "is licensed under the SIL Open Font License, Version 1.1.",
    "licenseInfoURL": "https://openfontlicense.org",
}


class SourceFont:
    """An installed font whose glyphs can be copied.

    Args:
        font: has 1000 units per em.
    """

    def __init__(self, font: TTFont) -> None:
        self._font = font
        self._glyphs = font.getGlyphSet()
        self._names: dict[int, str] = font.getBestCmap()
        self._has_cubic_curves = "CFF " in font

    def has(self, character: str) -> bool:
        """Return whether the font has a glyph for the character."""
        return ord(character) in self._names

    def glyph(self, character: str) -> tuple[Any, int]:
        """The character's TrueType outline and its advance width in units."""
        source = self._glyphs[self._names[ord(character)]]
        outline = DecomposingRecordingPen(self._glyphs)
        source.draw(outline)
        pen = TTGlyphPen(None)
        outline.replay(Cu2QuPen(pen, MAX_ERROR, True) if self._has_cubic_curves else pen)
        return pen.glyph(), round(source.width)


def write_labels(folder: Path, names: ClassNames) -> None:
    """Write the label texts of names with characters beyond ASCII, and the font that draws them.

    Other characters than letters of SIMPLE_SCRIPTS, and digits and signs that the fonts have, are
    transliterated. Nothing is written if all names are printable ASCII.
    """
    special = [
        name
        for name in (*names.things, *names.stuff)
        if one_line(name) != name or not name.isascii()
    ]
    if not special:
        return
    with ExitStack() as stack:
        sources = [SourceFont(stack.enter_context(_open(*source))) for source in SOURCES]
        texts = {name: label_text(name, sources) for name in special}
        characters = "".join(texts.values())
        if not characters.isascii():
            font = label_font({*ASCII, *characters}, sources)
            (folder / LABEL_FONT_FILE).write_bytes(font)
    (folder / LABELS_FILE).write_text(json.dumps(texts), encoding="utf-8")


def label_text(name: str, sources: Sequence[SourceFont]) -> str:
    """The name with characters that the sources cannot draw transliterated to ASCII.

    Empty if nothing is left of the name.
    """
    characters = (each if is_drawable(each, sources) else anyascii(each) for each in one_line(name))
    return one_line("".join(characters))


def is_drawable(character: str, sources: Sequence[SourceFont]) -> bool:
    """Return whether the character is readable without shaping and a source has it."""
    if character in ASCII:
        return True
    kind = unicodedata.category(character)[0]
    if kind == "L" and unicodedata.name(character, "").split(maxsplit=1)[0] not in SIMPLE_SCRIPTS:
        return False
    return kind in "LNPS" and any(source.has(character) for source in sources)


def label_font(characters: Iterable[str], sources: Sequence[SourceFont]) -> bytes:
    """A TrueType file with these characters of the sources; equal characters give equal bytes."""
    glyphs = {".notdef": (TTGlyphPen(None).glyph(), UNITS_PER_EM)}
    character_map = {}
    for character in sorted(characters):
        source = next(source for source in sources if source.has(character))
        name = f"u{ord(character):04X}"
        character_map[ord(character)] = name
        glyphs[name] = source.glyph(character)
    builder = FontBuilder(UNITS_PER_EM, isTTF=True)
    builder.updateHead(created=NO_TIME, modified=NO_TIME)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap(character_map)
    builder.setupGlyf({name: outline for name, (outline, _) in glyphs.items()})
    table = builder.font["glyf"]
    builder.setupHorizontalMetrics(
        {name: (width, getattr(table[name], "xMin", 0)) for name, (_, width) in glyphs.items()}
    )
    builder.setupHorizontalHeader(ascent=ASCENT, descent=DESCENT)
    builder.setupNameTable(NAMES, mac=False)
    builder.setupOS2(
        sTypoAscender=ASCENT, sTypoDescender=DESCENT, usWinAscent=ASCENT, usWinDescent=-DESCENT
    )
    builder.setupPost(keepGlyphNames=False)
    file = io.BytesIO()
    builder.save(file)
    return file.getvalue()


@contextmanager
def _open(package: str, name: str) -> Iterator[TTFont]:
    with as_file(files(package).joinpath(name)) as path, TTFont(path, lazy=True) as font:
        yield font
