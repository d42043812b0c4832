"""Settings of an archive: `model-config.yaml` and the environment."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from d2serve.errors import SettingsError
from d2serve.messages import OPTION_NAMES
from d2serve.serving.safe_yaml import load_yaml, read_yaml_text
from d2serve.settings import RETIRED_SETTINGS, SETTING_NAMES, Settings

logger = logging.getLogger(__name__)
MODEL_CONFIG_FILE = "model-config.yaml"
ENVIRONMENT_PREFIX = "D2SERVE_"


def read_settings(
    model_config_file: Path,
    environment: Mapping[str, str] = os.environ,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Read the `handler` section of a model-config.yaml and the environment, else defaults.

    TorchServe reads the file too, but only if the manifest names it.

    Args:
        model_config_file: the file; it may be missing.
        environment: variables such as D2SERVE_IMAGES_PER_FORWARD, which win over the file.
        overrides: settings and request options, by name, which win over the file.

    Raises:
        SettingsError: the file is not a YAML mapping, or a setting is not valid.
    """
    section = _mapping(read_content(model_config_file).get("handler"))
    return load_settings({**section, **(overrides or {})}, environment)


def check_model_config(content: Mapping[str, Any]) -> None:
    """Check the content of a model-config.yaml before it is packed into an archive.

    Raises:
        SettingsError: a setting of the section `handler` is not valid or stands outside of it.
    """
    misplaced = sorted({*SETTING_NAMES, *OPTION_NAMES} & content.keys())
    if misplaced:
        raise SettingsError(
            f"{MODEL_CONFIG_FILE}: {misplaced[0]} stands at the top, expected in the section "
            f"handler, such as handler: {{{misplaced[0]}: ...}}"
        )
    load_settings(content.get("handler"), {})


def read_content(model_config_file: Path) -> Mapping[str, Any]:
    """Read a model-config.yaml; empty if it is missing.

    Raises:
        SettingsError: the file is not a YAML mapping.
    """
    if not model_config_file.exists():
        return {}
    try:
        content = load_yaml(read_yaml_text(model_config_file))
    except (yaml.YAMLError, UnicodeError, OSError) as error:
        raise SettingsError(f"{model_config_file.name} is not YAML: {error}") from error
    if not isinstance(content, Mapping):
        raise SettingsError(
            f"{model_config_file.name} is a {type(content).__name__}, expected a mapping such as "
            "batchSize: 8"
        )
    return content


def load_settings(
    section: Mapping[str, Any] | None, environment: Mapping[str, str] = os.environ
) -> Settings:
    """Merge defaults, the section and variables such as D2SERVE_IMAGES_PER_FORWARD, the last wins.

    Settings that earlier versions had are ignored with a warning.

    Raises:
        SettingsError: a setting is unknown or its value out of range.
    """
    section = _without_retired(_mapping(section))
    names = {*SETTING_NAMES, *OPTION_NAMES}
    for name in section:
        if name not in names:
            raise SettingsError(
                f"handler setting {name} does not exist; accepted are {', '.join(sorted(names))}"
            )
    given = {**section, **_from_environment(environment)}
    options = {name: given.pop(name) for name in OPTION_NAMES if name in given}
    return Settings(**given, options=options)


def _mapping(section: Any) -> Mapping[str, Any]:
    if section is None:
        return {}
    if not isinstance(section, Mapping):
        raise SettingsError(
            f"the section handler is a {type(section).__name__}, expected a mapping such as "
            "images_per_forward: 8"
        )
    return section


def _without_retired(section: Mapping[str, Any]) -> Mapping[str, Any]:
    retired = [name for name in section if name in RETIRED_SETTINGS]
    if not retired:
        return section
    logger.warning(
        "%s: the handler settings %s no longer exist and are ignored; remove them",
        MODEL_CONFIG_FILE,
        ", ".join(retired),
    )
    return {name: value for name, value in section.items() if name not in retired}


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    given = {
        name: environment.get(ENVIRONMENT_PREFIX + name.upper())
        for name in (*SETTING_NAMES, *OPTION_NAMES)
    }
    return {name: read_value(text) for name, text in given.items() if text is not None}


def read_value(text: str) -> bool | int | str:
    """Convert as YAML does: an integer, true or false, else a string."""
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.isascii() and text.isdecimal() else text
