"""Read and write `calibration.json`, the quantization of an archive's network.

{"format_version": 1, "inputs": {"backbone.bottom_up.stem": [0.018, 118], ...},
 "outputs": {...}, "kept": ["backbone.bottom_up.res2.0"], "largest_error": 0.05}
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

from d2serve.errors import ConfigError
from d2serve.model.calibration import Calibration
from d2serve.model.int8_conv import LARGEST, Quantization

CALIBRATION_FILE = "calibration.json"
FORMAT_VERSION = 1
REBUILD = "build the archive again with `d2serve archive --precision int8`"


def write_calibration(folder: Path, found: Calibration) -> None:
    """Write the file into a model folder."""
    content = {
        "format_version": FORMAT_VERSION,
        "inputs": _encode(found.inputs),
        "outputs": _encode(found.outputs),
        "kept": sorted(found.kept),
        "largest_error": found.largest_error,
    }
    text = json.dumps(content, indent=1, allow_nan=False)
    (folder / CALIBRATION_FILE).write_text(f"{text}\n", encoding="utf-8")


def read_calibration(folder: Path) -> Calibration | None:
    """Read the file of a model folder; None if it does not exist.

    Raises:
        ConfigError: the file is damaged or has another format version.
    """
    try:
        content = json.loads((folder / CALIBRATION_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{CALIBRATION_FILE} cannot be read: {error}; {REBUILD}") from error
    try:
        return _decode(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{CALIBRATION_FILE} is not valid: {type(error).__name__}: {error}; {REBUILD}"
        ) from error


def _encode(quantizations: Mapping[str, Quantization]) -> dict[str, list[Any]]:
    return {name: list(asdict(each).values()) for name, each in quantizations.items()}


def _decode(content: Any) -> Calibration:
    version = content["format_version"]
    if version != FORMAT_VERSION:
        raise ValueError(f"format_version is {version!r}, expected {FORMAT_VERSION}")
    inputs, outputs = (
        {name: _quantization(name, each) for name, each in content[key].items()}
        for key in ("inputs", "outputs")
    )
    return Calibration(inputs, outputs, frozenset(content["kept"]), float(content["largest_error"]))


def _quantization(name: str, value: Any) -> Quantization:
    scale, zero_point = value
    if type(zero_point) is not int or not 0 <= zero_point <= LARGEST:
        raise ValueError(f"the zero point of {name} is {zero_point!r}, expected 0 to {LARGEST}")
    if type(scale) is not float or not (isfinite(scale) and scale > 0):
        raise ValueError(f"the scale of {name} is {scale!r}, expected a number above 0")
    return Quantization(scale, zero_point)
