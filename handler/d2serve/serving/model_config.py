"""The archive's `model-config.yaml`: its `handler:` section and the environment as settings."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from d2serve.messages import OPTION_NAMES
from d2serve.serving.safe_yaml import load_yaml
from d2serve.settings import SETTING_NAMES, Settings, SettingsError

SERVING_FILE = "model-config.yaml"
ENVIRONMENT_PREFIX = "D2SERVE_"
# Of SageMaker's PyTorch container; where the first are set, it does not read the second.
WORKERS = (
    ("SAGEMAKER_TS_MIN_WORKERS", "SAGEMAKER_TS_MAX_WORKERS"),
    ("SAGEMAKER_MODEL_SERVER_WORKERS",),
)


def read_settings(serving_file: Path) -> Settings:
    """The `handler` section of a model-config.yaml, and the environment; defaults without a file.

    TorchServe reads that file too, but only where the manifest names it.

    Raises:
        SettingsError: the file is no YAML mapping, or a setting in it is not valid.
    """
    return load_settings(_content(serving_file).get("handler"))


def read_workers(serving_file: Path, environment: Mapping[str, str] = os.environ) -> int:
    """How many workers TorchServe may start; 1 where nothing says.

    A model-config.yaml says so, else the variables that SageMaker's container makes TorchServe's
    settings of.

    Raises:
        SettingsError: the file is no YAML mapping.
    """
    content = _content(serving_file)
    given: list[list[Any]] = [
        [content.get(name) for name in ("minWorkers", "maxWorkers")],
        *([_value(environment.get(name, "")) for name in names] for names in WORKERS),
    ]
    for source in given:
        counts = [count for count in source if isinstance(count, int)]
        if counts:
            return max(1, *counts)
    return 1


def _content(serving_file: Path) -> Mapping[str, Any]:
    if not serving_file.exists():
        return {}
    try:
        content = load_yaml(serving_file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{serving_file.name} is not YAML: {error}") from error
    if not isinstance(content, Mapping):
        raise SettingsError(f"{serving_file.name} must be a mapping, e.g. batchSize: 8")
    return content


def load_settings(
    section: Mapping[str, Any] | None, environment: Mapping[str, str] = os.environ
) -> Settings:
    """Defaults, then the section, then variables such as D2SERVE_IMAGES_PER_FORWARD.

    Raises:
        SettingsError: a setting is unknown or its value out of range.
    """
    section = {} if section is None else section
    if not isinstance(section, Mapping):
        raise SettingsError("the handler section must be a mapping, e.g. images_per_forward: 8")
    names = {*SETTING_NAMES, *OPTION_NAMES}
    for name in section:
        if name not in names:
            raise SettingsError(
                f"handler setting {name} does not exist; there are {', '.join(sorted(names))}"
            )
    given = {**section, **_from_environment(environment)}
    options = {name: given.pop(name) for name in OPTION_NAMES if name in given}
    return Settings(**given, options=options)


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    given = {
        name: environment.get(ENVIRONMENT_PREFIX + name.upper())
        for name in (*SETTING_NAMES, *OPTION_NAMES)
    }
    return {name: _value(text) for name, text in given.items() if text is not None}


def _value(text: str) -> bool | int | str:
    """As YAML would have it: a number, true or false, else text."""
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.isascii() and text.isdecimal() else text
