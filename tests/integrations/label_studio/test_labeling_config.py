"""Labeling configs, also hostile ones."""

import pytest

from d2serve.errors import CommandError
from d2serve.integrations.label_studio.labeling_config import parse_labeling_config

CONFIG = """<?xml version="1.0"?>
<View>
  <!-- a comment -->
  <Image name="photo" value="$image"/>
  <RectangleLabels name="box" toName="photo">
    <Label value="Cat" alias="feline"/>
    <Label value="vehicle" predicted_values="car, Bus,cat"/>
  </RectangleLabels>
  <PolygonLabels name="outline" toName="sound,photo"><Label value="cat"/></PolygonLabels>
  <BrushLabels name="lost" toName="missing"><Label value="cat"/></BrushLabels>
  <EllipseLabels name="ellipse" toName="photo"><Label value="cat"/></EllipseLabels>
</View>"""


def test_controls_of_images() -> None:
    config = parse_labeling_config(CONFIG)
    assert config.image_keys == {"photo": "image"}
    assert [(control.type, control.name, control.image_name) for control in config.controls] == [
        ("rectanglelabels", "box", "photo"),
        ("polygonlabels", "outline", "photo"),
    ]


@pytest.mark.parametrize(
    ("class_name", "label"),
    [
        ("cat", "feline"),
        ("CAT", "feline"),
        ("feline", "feline"),
        ("car", "vehicle"),
        ("bus", "vehicle"),
        ("vehicle", "vehicle"),
        ("dog", None),
        ("", None),
    ],
)
def test_the_label_of_a_class(class_name: str, label: str | None) -> None:
    assert parse_labeling_config(CONFIG).controls[0].label_of(class_name) == label


BOMB = '<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><View>&b;</View>'
EXTERNAL = '<!DOCTYPE v [<!ENTITY a SYSTEM "file:///etc/passwd">]><View>&a;</View>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "a declaration such as <!DOCTYPE>"),
        (EXTERNAL, "a declaration such as <!DOCTYPE>"),
        ("<View>" + " " * 1_000_000 + "</View>", "expected at most 1000000 characters"),
        ("<View>", "is not XML"),
        ("", "is not XML"),
        ("<View>&unknown;</View>", "is not XML"),
        ("<View>\x00</View>", "is not XML"),
        ("<View>\ud800</View>", "is not XML"),
    ],
)
def test_invalid_configs_are_refused(text: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        parse_labeling_config(text)


def test_deep_nesting_is_harmless() -> None:
    depth = 50_000
    assert parse_labeling_config("<a>" * depth + "</a>" * depth).controls == ()


def test_an_index_that_is_no_position_is_ignored() -> None:
    text = """<View><Image name="i" value="$image"/><KeyPointLabels name="k" toName="i">
      <Label value="nose" model_index="2"/><Label value="eye" model_index="INDEX"/>
    </KeyPointLabels></View>"""
    [control] = parse_labeling_config(text.replace("INDEX", "9" * 5000)).controls
    assert control.indices == {2: "nose"}
