"""Read the values of a keyed config and collect the unsupported ones."""

from collections.abc import Iterator
from typing import Any

from d2serve.building.config_keys import KEYS
from d2serve.building.extensions import KnownKeys, known_keys
from d2serve.building.key_types import Key
from d2serve.building.named_models import find_named_model
from d2serve.building.projects import package_accepts
from d2serve.building.python_tags import find_opaque
from d2serve.building.unknown_keys import (
    class_notes,
    describe_unknown,
    find_owners,
    ignore_hint,
    project_notes,
)
from d2serve.errors import UnsupportedConfigError
from d2serve.model.backbone_config import BASIC_BLOCK_DEPTHS

GROUP_WIDTH = "MODEL.RESNETS.WIDTH_PER_GROUP"
# Keys of a norm and of the numbers of channels that it normalizes.
NORMALIZED = {
    "MODEL.RESNETS.NORM": (
        "MODEL.RESNETS.STEM_OUT_CHANNELS",
        "MODEL.RESNETS.RES2_OUT_CHANNELS",
        GROUP_WIDTH,
    ),
    "MODEL.FPN.NORM": ("MODEL.FPN.OUT_CHANNELS",),
    "MODEL.RETINANET.NORM": ("MODEL.FPN.OUT_CHANNELS",),
    "MODEL.ROI_BOX_HEAD.NORM": ("MODEL.ROI_BOX_HEAD.CONV_DIM",),
    "MODEL.ROI_MASK_HEAD.NORM": ("MODEL.ROI_MASK_HEAD.CONV_DIM",),
    "MODEL.SEM_SEG_HEAD.NORM": ("MODEL.SEM_SEG_HEAD.CONVS_DIM",),
    "MODEL.ROI_DENSEPOSE_HEAD.DEEPLAB.NORM": ("MODEL.ROI_DENSEPOSE_HEAD.CONV_HEAD_DIM",),
    "MODEL.ROI_DENSEPOSE_HEAD.DECODER_NORM": ("MODEL.ROI_DENSEPOSE_HEAD.DECODER_CONV_DIMS",),
}
GROUP_NORM, NUM_GROUPS = "GN", 32
DETECTRON2_KEYS = KnownKeys()
# A head without them has no channels to normalize.
NUM_LAYERS = {"MODEL.ROI_BOX_HEAD.NORM": "NUM_CONV", "MODEL.ROI_MASK_HEAD.NORM": "NUM_CONV"}


class ConfigValues:
    """The values that a config sets, with its projects' defaults for the rest.

    A meta-architecture reads only the keys that it needs, so values that do not affect it are
    never a problem. Problems are collected, so that one error lists all of them.
    """

    def __init__(self, explicit: dict[str, Any]) -> None:
        self.given = dict(flatten(explicit))
        self.known = known_keys(self.given)
        self.problems: dict[str, str] = {}
        self.conflicts: dict[str, str] = {}
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        """The value of a key; its default if the value is not supported."""
        key = self.known.keys[name]
        self.read.add(name)
        value = self._value(name)
        aliases = self.known.aliases.get(name, {})
        if isinstance(value, str) and value in aliases:
            return aliases[value]
        if key.check(value):
            return value
        self.problems[name] = f"{name}: {value!r} (supported: {key.describe(value)})"
        return key.default

    def optional(self, name: str, key: Key) -> Any:
        """The value of a key that only an option of the build reads."""
        value = self.given.get(name, key.default)
        if key.check(value):
            return value
        self.problems[name] = f"{name}: {value!r} (supported: {key.describe(value)})"
        return key.default

    def knows(self, name: str) -> bool:
        """Return whether Detectron2 or a project of the config defines a key of inference."""
        return name in self.known.keys

    def add_conflict(self, name: str, reason: str) -> None:
        """Record a value that is not supported together with other values."""
        self.conflicts[name] = f"{name}: {self[name]!r} ({reason})"

    def raise_problems(self) -> None:
        """Raise all problems, after all keys have been read.

        Raises:
            UnsupportedConfigError: values are unsupported or keys unknown, else values conflict.
        """
        unknown = {name: self.given[name] for name in self.given if self.known.is_unknown(name)}
        sections = {name: self.given[name] for name in self.given if name in self.known.sections}
        for name, value in sections.items():
            self.problems[name] = f"{name}: {value!r} (supported: a mapping of its keys)"
        if self.problems or unknown:
            problems = {name: self._value(name) for name in self.problems}
            values = problems | unknown
            named = find_named_model(self.given)
            if named is not None and not named.model.supported:
                raise UnsupportedConfigError([named.refusal])
            owners = find_owners(values)
            notes = [*project_notes(owners), *class_notes(problems, owners)]
            if named is not None:
                notes.append(f"{named} is supported, but not with these values")
            if unknown and not self.problems:
                notes += ignore_hint(unknown, owners)
            raise UnsupportedConfigError(
                [*self.problems.values(), *describe_unknown(unknown, owners)],
                notes,
                package_may_run=self._package_accepts(values),
            )
        self._check_group_norms()
        if self.conflicts:  # Detectron2 cannot build these either
            raise UnsupportedConfigError([*self.conflicts.values()])

    def _value(self, name: str) -> Any:
        """The value of a key or a section, supported or not."""
        return self.given[name] if name in self.given else self.known.keys[name].default

    def _check_group_norms(self) -> None:
        for norm, channels in NORMALIZED.items():
            if norm not in self.read or self[norm] != GROUP_NORM:
                continue
            if norm in NUM_LAYERS and self[f"{norm.removesuffix('NORM')}{NUM_LAYERS[norm]}"] == 0:
                continue
            for name in self.read.intersection(channels):
                if name == GROUP_WIDTH and self["MODEL.RESNETS.DEPTH"] in BASIC_BLOCK_DEPTHS:
                    continue
                groups = self["MODEL.RESNETS.NUM_GROUPS"] if name == GROUP_WIDTH else 1
                if self[name] * groups % NUM_GROUPS:
                    times = f" after multiplication by {groups} groups" if groups > 1 else ""
                    self.add_conflict(
                        name, f"must be a multiple of {NUM_GROUPS}{times} with {norm} {GROUP_NORM}"
                    )

    def _package_accepts(self, values: dict[str, Any]) -> bool:
        return find_opaque(values) is None and package_accepts(values)


def flatten(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values; a mapping given for a key is its value."""
    for key, value in node.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in KEYS:
            yield from flatten(value, f"{name}.")
        else:
            yield name, value


def is_training_only(name: str) -> bool:
    """Return whether a key of Detectron2 or its section affects training only."""
    return DETECTRON2_KEYS.is_training_only(name)


def is_unknown(name: str) -> bool:
    """Return whether Detectron2 does not define a key."""
    return DETECTRON2_KEYS.is_unknown(name)
