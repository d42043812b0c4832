"""Read and write `model.json`: the resolved model config of an archive.

    {"format_version": 1, "runtime": "native", "config": {"input": {...}, "backbone": {...}, ...}}

`config` is a `ModelConfig` field by field for the runtime `native`; other runtimes define their
own. Where several classes are possible, `type` names the one by Detectron2's name for it.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from d2serve.errors import ConfigError
from d2serve.model.backbone_config import (
    POOLED_TOP,
    TWO_CONVOLUTIONS,
    BackboneConfig,
    ConvNeXtConfig,
    ResNetConfig,
    SimpleFPNConfig,
    VoVNetConfig,
)
from d2serve.model.config import (
    ModelConfig,
    PanopticConfig,
    ProposalNetworkConfig,
    RCNNConfig,
    RetinaNetConfig,
)
from d2serve.model.fcos_config import CondInstConfig, FCOSConfig
from d2serve.model.heads_config import CenterMaskConfig, SemanticConfig
from d2serve.model.mask_dino_config import MaskDINOConfig
from d2serve.model.mask_former_config import (
    DeformableEncoderConfig,
    MaskFormerConfig,
    TransformerConfig,
)
from d2serve.model.sparse_rcnn_config import SparseRCNNConfig
from d2serve.model.vision_transformer_config import BEiTConfig, SwinConfig

MODEL_FILE = "model.json"
FORMAT_VERSION = 1
TYPE_KEY = "type"
# Part of the file format, therefore independent of the classes' own names.
TYPES: dict[str, type] = {
    "BottomUp": BackboneConfig,
    "BEiT": BEiTConfig,
    "ConvNeXt": ConvNeXtConfig,
    "ResNet": ResNetConfig,
    "SwinTransformer": SwinConfig,
    "VoVNet": VoVNetConfig,
    "SimpleFeaturePyramid": SimpleFPNConfig,
    "GeneralizedRCNN": RCNNConfig,
    "PanopticFPN": PanopticConfig,
    "ProposalNetwork": ProposalNetworkConfig,
    "RetinaNet": RetinaNetConfig,
    "OneStageDetector": FCOSConfig,
    "CenterMask": CenterMaskConfig,
    "CondInst": CondInstConfig,
    "SparseRCNN": SparseRCNNConfig,
    "MaskFormer": MaskFormerConfig,
    "MaskDINO": MaskDINOConfig,
    "MSDeformAttn": DeformableEncoderConfig,
    "TransformerEncoder": TransformerConfig,
    "SemanticSegmentor": SemanticConfig,
}
TYPE_NAMES = {kind: name for name, kind in TYPES.items()}
SCALARS: dict[type, str] = {bool: "true or false", int: "an integer", str: "a string"}
REBUILD = "build the archive again with `d2serve archive`"


def write_model_file(folder: Path, runtime: str, config: Mapping[str, Any]) -> None:
    """Write `model.json` for a runtime; `config` contains JSON types only."""
    content = {"format_version": FORMAT_VERSION, "runtime": runtime, "config": config}
    text = json.dumps(content, indent=1, allow_nan=False)
    (folder / MODEL_FILE).write_text(f"{text}\n", encoding="utf-8")


def read_model_file(folder: Path, runtime: str) -> Mapping[str, Any]:
    """Read the section `config` of `model.json`.

    Args:
        folder: the folder that contains the file.
        runtime: the runtime that loads the model.

    Raises:
        ConfigError: the file is missing or damaged, has another format version, or was written for
            another runtime.
    """
    try:
        content = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"{MODEL_FILE} does not exist: an earlier version built the archive; {REBUILD}"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{MODEL_FILE} cannot be read: {error}; {REBUILD}") from error
    content = _mapping(content, "")
    # Before anything else: other versions may have other keys.
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise ConfigError(
            f"{MODEL_FILE}: format_version is {version!r}, this d2serve reads {FORMAT_VERSION}; "
            f"{REBUILD} of this version"
        )
    _check_keys(content, {"format_version", "runtime", "config"}, "")
    if content["runtime"] != runtime:
        raise ConfigError(
            f"{MODEL_FILE}: runtime is {content['runtime']!r}, the setting `runtime` is "
            f"{runtime!r}; remove the setting or build the archive for that runtime"
        )
    return _mapping(content["config"], "config")


def encode_config(config: ModelConfig) -> dict[str, Any]:
    """Convert a model config to JSON types."""
    encoded: dict[str, Any] = _encode(config)
    return encoded


def decode_config(content: Mapping[str, Any]) -> ModelConfig:
    """Convert the section `config` of `model.json` to a model config.

    Raises:
        ConfigError: a key is unknown or missing, or a value has the wrong type.
    """
    config: ModelConfig = _decode_dataclass(ModelConfig, _upgrade(content), "config")
    return config


def _upgrade(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Convert the backbone of version 0.2.0, `{"type": "ResNet", "resnet": {...}, "fpn": ...}`."""
    backbone = content.get("backbone")
    if not isinstance(backbone, dict) or not isinstance(backbone.get("resnet"), dict):
        return content
    fpn = backbone.get("fpn")
    if isinstance(fpn, dict) and isinstance(fpn.get("top_convolutions"), bool):
        top = TWO_CONVOLUTIONS if fpn["top_convolutions"] else POOLED_TOP
        fpn = {**fpn, "top_block": top}
        del fpn["top_convolutions"]
    bottom_up = {TYPE_KEY: "ResNet", **backbone["resnet"]}
    return {**content, "backbone": {TYPE_KEY: "BottomUp", "bottom_up": bottom_up, "fpn": fpn}}


def _encode(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_encode(item) for item in value]
    if not is_dataclass(value):
        return value
    name = TYPE_NAMES.get(type(value))
    encoded = {field.name: _encode(getattr(value, field.name)) for field in fields(value)}
    return {TYPE_KEY: name, **encoded} if name else encoded


def _decode(kind: Any, value: Any, path: str) -> Any:
    """Check `value` against the type annotation `kind`; tuples are lists in JSON."""
    if isinstance(kind, UnionType):
        return _decode_union(get_args(kind), value, path)
    if get_origin(kind) is tuple:
        return _decode_tuple(get_args(kind)[0], value, path)
    if is_dataclass(kind):
        return _decode_dataclass(kind, value, path)
    if kind is float:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise _wrong_type(path, value, "a number")
    elif type(value) is not kind:
        raise _wrong_type(path, value, SCALARS[kind])
    return value


def _decode_union(kinds: tuple[Any, ...], value: Any, path: str) -> Any:
    """`X | None`, or one of several dataclasses, selected by `type`."""
    if value is None and NoneType in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not NoneType)
    if len(kinds) == 1:
        return _decode(kinds[0], value, path)
    names = {TYPE_NAMES[kind]: kind for kind in kinds}
    name = _mapping(value, path).get(TYPE_KEY)
    if not isinstance(name, str) or name not in names:
        raise _wrong_type(f"{path}.{TYPE_KEY}", name, " or ".join(map(repr, names)))
    return _decode_dataclass(names[name], value, path)


def _decode_tuple(kind: Any, value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong_type(path, value, "a list")
    return tuple(_decode(kind, item, f"{path}[{index}]") for index, item in enumerate(value))


def _decode_dataclass(kind: Any, value: Any, path: str) -> Any:
    hints = get_type_hints(kind)
    tag = {TYPE_KEY} if kind in TYPE_NAMES else set()
    # Fields with a default are newer than the file format.
    content = {**_defaults(kind), **_mapping(value, path)}
    _check_keys(content, {*hints, *tag}, path)
    return kind(
        **{name: _decode(hint, content[name], f"{path}.{name}") for name, hint in hints.items()}
    )


def _defaults(kind: Any) -> dict[str, Any]:
    return {
        field.name: _encode(field.default) for field in fields(kind) if field.default is not MISSING
    }


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _wrong_type(path, value, "an object")
    return value


def _check_keys(content: Mapping[str, Any], expected: set[str], path: str) -> None:
    for problem, names in (
        ("unknown", content.keys() - expected),
        ("missing", expected - content.keys()),
    ):
        if names:
            name = f"{path}.{min(names)}" if path else min(names)
            raise ConfigError(
                f"{MODEL_FILE}: key {name} is {problem}, format version {FORMAT_VERSION} has "
                f"{', '.join(sorted(expected))}; {REBUILD} of this version"
            )


def _wrong_type(path: str, value: Any, expected: str) -> ConfigError:
    where = f"{MODEL_FILE}: {path}" if path else MODEL_FILE
    return ConfigError(f"{where} is {value!r:.60}, expected {expected}; {REBUILD}")
