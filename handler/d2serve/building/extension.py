"""The type of the keys that another project adds to Detectron2's config."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from d2serve.building.key_types import Key


@dataclass(frozen=True)
class Extension:
    """Keys and values of a project that d2serve supports, known only in configs of that project.

    Attributes:
        markers: patterns of keys, and `KEY=VALUE`; every config of the project matches one.
        keys: the keys that inference reads.
        values: further values of Detectron2's keys.
        aliases: for each key the values that are read as another value, such as a class that
            differs in training only.
        ignored: keys and sections that do not affect inference: of training, and of networks of the
            project that other keys would select.
    """

    markers: tuple[str, ...]
    keys: Mapping[str, Key] = field(default_factory=dict)
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
