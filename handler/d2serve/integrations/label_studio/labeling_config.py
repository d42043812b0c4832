"""The labeling config of a Label Studio project: its control tags and their labels."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from xml.etree import ElementTree

from d2serve.errors import CommandError

CONTROL_TAGS = ("BrushLabels", "PolygonLabels", "RectangleLabels", "KeyPointLabels")
MAX_CHARACTERS = 1_000_000
INDEX = re.compile(r"\d{1,9}")
# Document types define entities, with which a short text expands to a huge one.
DECLARATION = re.compile(r"<!(?!--|\[CDATA\[)")


@dataclass(frozen=True)
class Control:
    """A control tag with labels, of one image.

    Attributes:
        tag: a member of CONTROL_TAGS.
        name: its name, `from_name` in results.
        image_name: the name of the Image tag, `to_name` in results.
        labels: what results contain, by the casefolded class name.
        indices: the labels whose attribute `model_index` is the position of a keypoint in the
            model's order, by this position.
    """

    tag: str
    name: str
    image_name: str
    labels: Mapping[str, str]
    indices: Mapping[int, str] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """The type of its results, which is also the key of their labels."""
        return self.tag.lower()

    def label_of(self, class_name: str) -> str | None:
        """The label of a class, without regard to case; None if there is none."""
        return self.labels.get(class_name.casefold())


@dataclass(frozen=True)
class LabelingConfig:
    """The part of a labeling config that predictions need.

    Attributes:
        image_keys: the key of a task's data by the name of the Image tag.
        controls: the supported control tags of these images.
    """

    image_keys: Mapping[str, str]
    controls: tuple[Control, ...]

    def controls_of(self, *tags: str) -> Iterator[Control]:
        """The controls of some kinds, in the order of the kinds."""
        return (control for tag in tags for control in self.controls if control.tag == tag)

    def of_image(self, name: str) -> "LabelingConfig":
        """The config with the controls of one image only."""
        controls = tuple(control for control in self.controls if control.image_name == name)
        return replace(self, controls=controls)


def parse_labeling_config(text: str) -> LabelingConfig:
    """Parse a labeling config.

    A class has the label whose `value`, `alias` or one of whose `predicted_values` (separated by
    commas) is its name; results contain the alias, or the value without one. Labels that are read
    from the tasks (`value="$labels"`) are not supported.

    Raises:
        CommandError: the text is not XML, too long, or declares entities.

    Examples:
        >>> config = parse_labeling_config(
        ...     '<View><Image name="image" value="$photo"/>'
        ...     '<BrushLabels name="tag" toName="image">'
        ...     '<Label value="Car" predicted_values="car,bus"/></BrushLabels></View>'
        ... )
        >>> config.image_keys, config.controls[0].label_of("bus")
        ({'image': 'photo'}, 'Car')
    """
    if len(text) > MAX_CHARACTERS or DECLARATION.search(text):
        raise CommandError(
            f"label_config has {len(text)} characters or a declaration such as <!DOCTYPE>; "
            f"expected at most {MAX_CHARACTERS} characters without declarations"
        )
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 (no declarations, no entities)
    except (ElementTree.ParseError, ValueError) as error:
        raise CommandError(f"label_config is not XML: {error}; copy it from Label Studio") from None
    image_keys = {
        tag.get("name", ""): tag.get("value", "")[1:]
        for tag in root.iter("Image")
        if tag.get("value", "").startswith("$")
    }
    controls = (_control(tag, image_keys) for tag in root.iter() if tag.tag in CONTROL_TAGS)
    return LabelingConfig(image_keys, tuple(control for control in controls if control))


def _control(tag: ElementTree.Element, image_keys: Mapping[str, str]) -> Control | None:
    names = (name.strip() for name in tag.get("toName", "").split(","))
    image_name = next((name for name in names if name in image_keys), None)
    if image_name is None:
        return None
    indices = {
        int(label.get("model_index", "")): _label_text(label)
        for label in tag.iter("Label")
        if INDEX.fullmatch(label.get("model_index", ""))
    }
    return Control(str(tag.tag), tag.get("name", ""), image_name, dict(_labels(tag)), indices)


def _labels(control: ElementTree.Element) -> Iterator[tuple[str, str]]:
    """Pairs of class name and label; of equal names, `dict` takes the last: that of a value."""
    labels = [tag for tag in control.iter("Label") if tag.get("value")]
    for attribute in ("predicted_values", "alias", "value"):
        for tag in labels:
            text = tag.get(attribute, "")
            names = text.split(",") if attribute == "predicted_values" else [text]
            for name in filter(None, map(str.strip, names)):
                yield name.casefold(), _label_text(tag)


def _label_text(tag: ElementTree.Element) -> str:
    return tag.get("alias") or tag.get("value") or ""
