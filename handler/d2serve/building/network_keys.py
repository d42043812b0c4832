"""Keys of known projects that change the network although its weights may have the same shapes."""

from fnmatch import fnmatchcase
from typing import Any

from d2serve.building.config_keys import IGNORED, KEYS
from d2serve.building.projects import IN_PACKAGE, Project

NETWORK = "MODEL."
# Only training reads these.
TRAINING = ("*.BACKWARD_SCALE", "*.CLS_DROPOUT", "*.FREEZE*", "*LOSS*")
# `MODEL` and `MODEL.RPN` of `MODEL.RPN.NMS_THRESH`.
SECTIONS = {name.rpartition(".")[0] for name in (*KEYS, *IGNORED)}


def is_network_key(name: str, value: Any) -> bool:
    """Return whether a key of a known project may belong to a part of the network that is on."""
    is_off = value is None or value is False or value == ""
    trains = any(fnmatchcase(name, pattern) for pattern in TRAINING)
    return name.startswith(NETWORK) and not is_off and not trains


def changes_standard_network(name: str, value: Any, owner: Project) -> bool:
    """Return whether a project's key changes parts that Detectron2's own keys describe too.

    The sections of other projects, such as `MODEL.YOLO`, are read only by their own classes, whose
    names the config would contain. The package reads all keys of its own projects, and d2serve
    those of projects that it supports.

    Examples:
        >>> from d2serve.building.projects import DEEP_LAB
        >>> changes_standard_network("MODEL.RESNETS.STEM_TYPE", "deeplab", DEEP_LAB)
        True
    """
    is_shared = owner in IN_PACKAGE or owner.is_supported or name.rpartition(".")[0] in SECTIONS
    return is_shared and is_network_key(name, value)
