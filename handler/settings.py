"""The archive's `handler:` section of `model-config.yaml` as one validated dataclass."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

ENVIRONMENT_PREFIX = "D2SERVE_"
PADDINGS = ("image", "batch")
# Where Pillow itself stops, as a guard against decompression bombs.
PILLOW_LIMIT = 178_956_970


class SettingsError(ValueError):
    """A setting that does not exist or has a value out of its range."""


@dataclass(frozen=True)
class Settings:
    """What an operator may choose.

    Attributes:
        max_request_bytes: bytes of one request's body.
        max_image_pixels: width x height of one picture, checked before it is decoded.
        max_images_per_request: pictures of one request.
        images_per_forward: how many pictures go through the network together at most; bounds
            memory.
        padding: `image` runs pictures together whose padded sizes are equal, so that an answer
            never depends on the neighbours in its batch; `batch` pads all to the largest, as
            Detectron2's ImageList does, which saves forwards and moves boxes near the borders.
        threads: CPU threads of the network in one worker; 0 leaves torch's own choice.

    Raises:
        SettingsError: naming the setting and a valid value.
    """

    max_request_bytes: int = 100_000_000
    max_image_pixels: int = 50_000_000
    max_images_per_request: int = 64
    images_per_forward: int = 8
    padding: str = "image"
    threads: int = 0

    def __post_init__(self) -> None:
        for name in (
            "max_request_bytes",
            "max_image_pixels",
            "max_images_per_request",
            "images_per_forward",
        ):
            _require_integer(name, getattr(self, name), least=1)
        _require_integer("threads", self.threads, least=0)
        if self.max_image_pixels > PILLOW_LIMIT:
            raise SettingsError(
                f"handler setting max_image_pixels is {self.max_image_pixels}; "
                f"Pillow refuses more than {PILLOW_LIMIT}"
            )
        if self.padding not in PADDINGS:
            raise SettingsError(
                f"handler setting padding is {self.padding!r}; use one of {', '.join(PADDINGS)}"
            )


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
    names = {field.name for field in fields(Settings)}
    for name in section:
        if name not in names:
            raise SettingsError(
                f"handler setting {name} does not exist; there are {', '.join(sorted(names))}"
            )
    return Settings(**{**section, **_from_environment(environment)})


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    given = {
        field.name: environment.get(ENVIRONMENT_PREFIX + field.name.upper())
        for field in fields(Settings)
    }
    return {name: _number_or_text(text) for name, text in given.items() if text is not None}


def _number_or_text(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() else text


def _require_integer(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise SettingsError(
            f"handler setting {name} is {value!r}; use a whole number of at least {least}"
        )
