"""Label texts of class names and the font that draws them."""

import io
import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from d2serve.building.label_font import ASCII, NO_TIME, SOURCES, write_labels
from d2serve.errors import ClassNamesError
from d2serve.metadata import ClassNames, Labels
from d2serve.outputs.labels import LABEL_FONT_FILE, LABELS_FILE, load_font, read_labels

SIZE = 40
READABLE = {
    "Latin": "naïve Łódź Bánh đường",
    "Greek": "τρίγωνο Ωμέγα",
    "Cyrillic": "треугольник щёлк їжак",
    "Chinese": "圆 三角形 國",
    "Japanese": "東京タワー ひらがな",
    "Korean": "원 삼각형",
    "outside the basic plane": "𠮷野家",
    "mixed": "圆 naïve ά №5 10µm²",
}


def labels_of(folder: Path, *names: str, stuff: tuple[str, ...] = ()) -> Labels:
    write_labels(folder, ClassNames(names, stuff))
    return read_labels(folder)


def glyph(font: ImageFont.FreeTypeFont, character: str) -> npt.NDArray[np.uint8]:
    image = Image.new("L", (2 * SIZE, 2 * SIZE))
    ImageDraw.Draw(image).text((SIZE // 2, SIZE // 4), character, 255, font=font)
    return np.asarray(image)


def open_font(labels: Labels) -> ImageFont.FreeTypeFont:
    assert labels.font is not None
    font = load_font(labels.font, SIZE)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


@pytest.mark.parametrize("name", READABLE.values(), ids=READABLE.keys())
def test_names_of_simple_scripts_are_drawn_as_they_are(tmp_path: Path, name: str) -> None:
    labels = labels_of(tmp_path, name)
    assert labels.texts == {name: name}
    font = open_font(labels)
    letters = sorted(set(name) - {" "})
    glyphs = {letter: glyph(font, letter).tobytes() for letter in letters}
    missing = glyph(font, "\U0010fffd").tobytes()
    assert len(set(glyphs.values()) | {missing}) == len(letters) + 1


def test_glyphs_are_those_of_the_source_fonts(tmp_path: Path) -> None:
    font = open_font(labels_of(tmp_path, "щ圆"))
    for letter, (package, name) in zip("щ圆", SOURCES, strict=True):
        source = ImageFont.truetype(
            str(files(package).joinpath(name)), SIZE, layout_engine=ImageFont.Layout.BASIC
        )
        assert font.getlength(letter) == pytest.approx(source.getlength(letter), abs=1)
        ours, theirs = (glyph(each, letter).astype(int).sum() for each in (font, source))
        # The sources have hints.
        assert ours == pytest.approx(theirs, rel=0.1)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("مثلث", "mthlth", id="Arabic"),
        pytest.param("משולש", "msvls", id="Hebrew"),
        pytest.param("कुत्ता", "kutta", id="Devanagari"),
        pytest.param("🐶 dog", ":dog: dog", id="emoji"),
        pytest.param("👨‍👩‍👧", ":man::woman::girl:", id="joined-emoji"),
        pytest.param("圆 مثلث", "圆 mthlth", id="mixed"),
        pytest.param("x̂y̰", "xy", id="marks-that-compose-with-no-letter"),
        pytest.param("e\u0301tage", "étage", id="marks-that-compose"),
        pytest.param("a\nb\tc\x07", "a b c", id="control-characters"),
        pytest.param("\u202eevil\u202c", "evil", id="direction-overrides"),
        pytest.param("\ud800x", "x", id="half-a-surrogate-pair"),
        pytest.param("\u200b", "", id="invisible"),
        pytest.param("\ue000", "", id="private-use"),
        pytest.param("\U000e0041", "", id="tag"),
        pytest.param("长" * 300, "长" * 200, id="long"),
    ],
)
def test_other_names_are_transliterated(tmp_path: Path, name: str, text: str) -> None:
    labels = labels_of(tmp_path, "ball", name)
    assert labels.texts == {name: text}
    assert (labels.font is None) == text.isascii()


def test_ascii_names_need_no_files(tmp_path: Path) -> None:
    assert labels_of(tmp_path, "ball", "traffic light", stuff=("~{sky}",)) == Labels()
    assert list(tmp_path.iterdir()) == []


def test_stuff_has_labels_too(tmp_path: Path) -> None:
    assert labels_of(tmp_path, "ball", stuff=("небо",)).texts == {"небо": "небо"}


def test_font_is_small_reproducible_and_names_its_licence(tmp_path: Path) -> None:
    fonts = []
    for build in ("first", "second"):
        (tmp_path / build).mkdir()
        labels = labels_of(tmp_path / build, "圆", "треугольник")
        assert labels.font is not None
        fonts.append(labels.font)
    assert fonts[0] == fonts[1]
    assert len(fonts[0]) < 16_000
    with TTFont(io.BytesIO(fonts[0])) as font:
        assert (font["head"].created, font["head"].modified) == (NO_TIME, NO_TIME)
        names = {number: font["name"].getDebugName(number) for number in (0, 1, 13)}
        assert set(map(chr, font.getBestCmap())) == {*ASCII, *"圆треугольник"}
    assert "Noto Project Authors" in names[0]
    assert "Noto" not in names[1]
    assert "SIL Open Font License" in names[13]


def test_texts_are_stored_as_ascii_json(tmp_path: Path) -> None:
    labels_of(tmp_path, "圆")
    assert json.loads((tmp_path / LABELS_FILE).read_bytes().decode("ascii")) == {"圆": "圆"}
    assert (tmp_path / LABEL_FONT_FILE).is_file()


@pytest.mark.parametrize("table", ["maxp", "glyf"])
def test_font_that_opens_but_cannot_draw_is_rejected(tmp_path: Path, table: str) -> None:
    labels_of(tmp_path, "naïve", "圆", "треугольник")
    path = tmp_path / LABEL_FONT_FILE
    with TTFont(path) as font:
        start, length = font.reader.tables[table].offset, font.reader.tables[table].length
    content = path.read_bytes()
    fill = b"\0" if table == "maxp" else b"\x7f"
    damaged = content[:start] + fill * length + content[start + length :]
    load_font(damaged, size=10)
    path.write_bytes(damaged)
    with pytest.raises(ClassNamesError, match="cannot be read"):
        read_labels(tmp_path)
