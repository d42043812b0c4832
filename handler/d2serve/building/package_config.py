"""Prepare a keyed config for the readers of the detectron2 package."""

from typing import Any

from d2serve.building.config_values import flatten, is_training_only
from d2serve.building.python_tags import as_text, find_opaque
from d2serve.errors import ConfigError

# Sections that only training reads. Projects add keys to them, which the package does not accept.
TRAINING_SECTIONS = ("DATALOADER", "INPUT.CROP", "SOLVER")


def for_package(explicit: dict[str, Any]) -> dict[str, Any]:
    """Return a config that the package reads without running code.

    Values that stand for code are left out if only training reads them.

    Raises:
        ConfigError: inference reads a value that stands for code.
    """
    code = {name: value for name, value in flatten(explicit) if find_opaque(value) is not None}
    read = [f"{name}: {value!r}" for name, value in code.items() if not is_training_only(name)]
    if read:
        raise ConfigError(
            f"{', '.join(read)}: Python expressions are not run; write the value as plain YAML"
        )
    plain: dict[str, Any] = as_text(_without(explicit, {*code, *TRAINING_SECTIONS}))
    return plain


def _without(node: dict[str, Any], names: set[str], prefix: str = "") -> dict[str, Any]:
    return {
        key: _without(value, names, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in node.items()
        if f"{prefix}{key}" not in names
    }
