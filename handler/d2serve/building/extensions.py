"""Keys of other projects that inference reads, beside those of Detectron2."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from d2serve.building.config_keys import IGNORED, KEYS
from d2serve.building.convnext_keys import CONVNEXT
from d2serve.building.deeplab_keys import DEEPLAB
from d2serve.building.densepose_keys import DENSEPOSE
from d2serve.building.dit_keys import DIT
from d2serve.building.extension import Extension
from d2serve.building.fcos_keys import CENTER_MASK, CONDINST, FCOS
from d2serve.building.few_shot_keys import FEW_SHOT
from d2serve.building.key_types import Key, extended
from d2serve.building.mask_dino_keys import MASK_DINO
from d2serve.building.mask_former_keys import MASK_FORMER
from d2serve.building.projects import has_any
from d2serve.building.sparse_rcnn_keys import SPARSE_RCNN
from d2serve.building.swin_keys import SWIN, SWINT
from d2serve.building.training_keys import TRAINING
from d2serve.building.vovnet_keys import VOVNET

EXTENSIONS: tuple[Extension, ...] = (
    DENSEPOSE,
    *FEW_SHOT,
    *TRAINING,
    VOVNET,
    FCOS,
    CONDINST,
    CENTER_MASK,
    MASK_FORMER,
    MASK_DINO,
    SPARSE_RCNN,
    DEEPLAB,
    CONVNEXT,
    DIT,
    SWIN,
    SWINT,
)


@dataclass(frozen=True)
class KnownKeys:
    """The keys that d2serve knows in a config: Detectron2's own and those of its projects.

    Attributes:
        keys: the keys that inference reads.
        ignored: keys and sections that do not affect inference.
        aliases: for each key the values that are read as another value.
    """

    keys: Mapping[str, Key] = field(default_factory=lambda: KEYS)
    ignored: tuple[str, ...] = IGNORED
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @cached_property
    def sections(self) -> frozenset[str]:
        """`MODEL.RPN` and `MODEL` of `MODEL.RPN.NMS_THRESH`, of all keys."""
        return frozenset(section for name in self.keys for section in _sections(name)) | frozenset(
            section for name in self.ignored for section in _sections(name)
        )

    def is_training_only(self, name: str) -> bool:
        """Return whether a key or its section does not affect inference."""
        return any(name == known or name.startswith(f"{known}.") for known in self.ignored)

    def is_unknown(self, name: str) -> bool:
        """Return whether the config's projects do not define a key."""
        return (
            name not in self.keys and name not in self.sections and not self.is_training_only(name)
        )


def known_keys(given: Mapping[str, Any]) -> KnownKeys:
    """Return the keys that are known in a config.

    Args:
        given: the values that the config sets, by dotted name.
    """
    active = [each for each in EXTENSIONS if has_any(each.markers, given)]
    keys = {**KEYS, **{name: key for each in active for name, key in each.keys.items()}}
    aliases: dict[str, dict[str, str]] = {}
    for each in active:
        for name, names in each.aliases.items():
            aliases[name] = {**aliases.get(name, {}), **names}
        for name, values in each.values.items():
            keys[name] = extended(keys[name], values)
    return KnownKeys(keys, (*IGNORED, *(name for each in active for name in each.ignored)), aliases)


def _sections(name: str) -> Iterator[str]:
    steps = name.split(".")
    return (".".join(steps[:count]) for count in range(1, len(steps)))
