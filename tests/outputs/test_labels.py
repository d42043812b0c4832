"""Texts of labels in overlays."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from d2serve.errors import ClassNamesError
from d2serve.metadata import Labels
from d2serve.outputs.labels import (
    LABEL_FONT_FILE,
    LABELS_FILE,
    MAX_CHARACTERS,
    LabelFonts,
    drawn_name,
    fitted,
    one_line,
    read_labels,
)

SIZE_HW = (480, 640)
PLAIN = Labels()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("traffic light", "traffic light", id="ascii"),
        pytest.param("a  b ", "a  b ", id="spaces-as-they-are"),
        pytest.param("naïve café", "naive cafe", id="accents"),
        pytest.param("ﬁsh", "fish", id="ligature"),
        pytest.param("圆", "class 7", id="Chinese"),
        pytest.param("圆 dog", "class 7", id="mixed"),
        pytest.param("треугольник", "class 7", id="Cyrillic"),
        pytest.param("🐶", "class 7", id="emoji"),
        pytest.param(" ", "class 7", id="blank"),
        pytest.param("\u200b", "class 7", id="invisible"),
        pytest.param("stop\nsign\x07", "stop sign", id="control-characters"),
        pytest.param("\ud800x", "x", id="half-a-surrogate-pair"),
    ],
)
def test_archives_without_labels_show_ascii_or_the_index(name: str, expected: str) -> None:
    assert drawn_name(name, 7, PLAIN) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("圆", "圆"), ("yuan", "yuan"), ("", "class 7"), (" ", "class 7")]
)
def test_the_archives_text_is_shown(text: str, expected: str) -> None:
    assert drawn_name("圆", 7, Labels({"圆": text})) == expected


@given(st.text(max_size=30))
def test_every_name_has_a_visible_ascii_label(name: str) -> None:
    text = drawn_name(name, 7, PLAIN)
    assert text.isascii()
    assert text.isprintable()
    assert text.strip()


@given(st.text())
def test_one_line_has_no_control_characters(name: str) -> None:
    line = one_line(name)
    assert not any(unicodedata.category(each).startswith("C") for each in line)
    assert one_line(line) == line


def test_names_of_a_million_characters_are_drawn() -> None:
    name = drawn_name("x" * 2_000_000, 0, PLAIN)
    assert name == "x" * MAX_CHARACTERS


@pytest.mark.parametrize("width", [60, 100, 200, 634])
def test_long_names_are_shortened_to_the_width(width: int) -> None:
    font = LabelFonts(SIZE_HW, PLAIN).of("x")
    text = fitted("traffic light of an unusual kind " * 5, " 98%", font, width)
    assert text.startswith("t")
    assert text.endswith("... 98%")
    assert width - 20 < font.getlength(text) <= width


@pytest.mark.parametrize(("name", "width"), [("ball", 634), ("ball", 1)])
def test_names_are_complete_if_they_fit_or_nothing_does(name: str, width: int) -> None:
    font = LabelFonts(SIZE_HW, PLAIN).of("x")
    assert fitted(name, " 98%", font, width) == "ball 98%"


def write(folder: Path, texts: object, font: bytes | None = None) -> Path:
    (folder / LABELS_FILE).write_text(json.dumps(texts), encoding="utf-8")
    if font is not None:
        (folder / LABEL_FONT_FILE).write_bytes(font)
    return folder


def test_folder_without_labels(tmp_path: Path) -> None:
    assert read_labels(tmp_path) == Labels()


@pytest.mark.parametrize("texts", [[], "x", {"a": 1}, {"a": None}])
def test_other_content_is_rejected(tmp_path: Path, texts: object) -> None:
    with pytest.raises(ClassNamesError, match=r"labels\.json is not an object"):
        read_labels(write(tmp_path, texts))


def test_broken_json_is_rejected(tmp_path: Path) -> None:
    (tmp_path / LABELS_FILE).write_text("{")
    with pytest.raises(ClassNamesError, match="cannot be read"):
        read_labels(tmp_path)


def test_damaged_font_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ClassNamesError, match="cannot be read"):
        read_labels(write(tmp_path, {"圆": "圆"}, b"no font"))


def test_missing_font_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ClassNamesError, match=r"labels\.ttf, which draws them, is missing"):
        read_labels(write(tmp_path, {"圆": "圆"}))
    assert read_labels(write(tmp_path, {"圆": "yuan"})).font is None


def test_ascii_is_drawn_by_pillows_font() -> None:
    draw = ImageDraw.Draw(Image.new("RGB", (9, 9)))
    font = LabelFonts(SIZE_HW, Labels({"圆": "圆"}, b"unused")).of("ball 98%")
    assert font.getbbox("ball") == draw.textbbox((0, 0), "ball", font=font)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("stop\nsign", "stop sign", id="line-break"),
        pytest.param("a\0b\x07", "a b", id="control-characters"),
        pytest.param("\ud800x", "x", id="half-a-surrogate-pair"),
        pytest.param("x" * 10_000, "x" * MAX_CHARACTERS, id="long"),
    ],
)
def test_edited_texts_are_drawn_on_one_line(tmp_path: Path, text: str, expected: str) -> None:
    labels = read_labels(write(tmp_path, {"圆": text}))
    name = drawn_name("圆", 0, labels)
    assert name == expected
    assert LabelFonts(SIZE_HW, labels).of(name).getlength(name) > 0


def test_texts_may_start_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / LABELS_FILE).write_bytes(b"\xef\xbb\xbf" + b'{"a": "b"}')
    assert read_labels(tmp_path).texts == {"a": "b"}
