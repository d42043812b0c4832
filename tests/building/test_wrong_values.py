"""Any value of any key is accepted or rejected by name; no other error leaves the readers."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from d2serve.building.config import parse_config
from d2serve.building.config_keys import KEYS
from d2serve.building.lazy_config import read_saved_config
from d2serve.building.python_tags import Opaque
from d2serve.building.yaml_config import merge, read_yaml_config
from d2serve.errors import UnsupportedConfigError
from tests.goldens.cases import CONFIGS

NAN, INFINITY = float("nan"), float("inf")
OPAQUE = Opaque("!!python/name:mine")
# Accepted by no key, apart from the empty list.
WRONG: dict[str, Any] = {
    "a word": "no-such-value",
    "a date": "2026-11-28T00:00:00",
    "not a number": NAN,
    "infinity": INFINITY,
    "a huge integer": 10**400,
    "a mapping": {"A": 1},
    "a set": {1},
    "bytes": b"x",
    "code": OPAQUE,
    "a list of None": [None],
    "a list of lists of None": [[None]],
    "a list of a mapping": [{}],
    "a list of not a number": [NAN] * 4,
    "a list of infinity": [INFINITY] * 3,
    "a list of huge integers": [10**400] * 4,
    "a list of lists of them": [[10**400], [NAN]],
    "a list of code": [OPAQUE],
    "an empty list": [],
    "an empty list in a list": [[]],
}
# Convolutions that a network may lack.
MAY_BE_EMPTY = {"MODEL.RPN.CONV_DIMS", "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS"}
# Accepted by some keys; what matters is that no other error is raised.
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, -2, 33, 100, 256.0, 0.5, -0.5, 2**31, 2**63, 1e300, "", "800"),
    *("GN", "LN", "BN", "RGB", "RPN", "Res5ROIHeads", "CascadeROIHeads", "PanopticFPN"),
    *((), [0], [-1], [-2], [256.0], [1, 2], [64, -1], ["res4"], ["p2"], ["stem"], ["res4"] * 2),
    *(["p2", "p4"], ["res2", "res3"], [[0]], [[32]], [[32], [64]], [[32, 64], [1]], [[-1]]),
    *([True] * 4, [1] * 4, [1.0] * 3, [1e-300] * 3, [1e300] * 4, ["p6"], "p2", [[["deep"]]]),
]
KEYED = [
    *("mask_rcnn_r50", "mask_rcnn_c4", "cascade_mask_rcnn_gn", "keypoint_rcnn", "retinanet"),
    *("panoptic_fpn", "semantic_fpn", "rpn_fpn", "mask_rcnn_r34_conv_heads"),
    "mask_rcnn_dconv",
]
# Together they read all keys of each kind of value.
EXHAUSTIVE = ["mask_rcnn_c4", "cascade_mask_rcnn_gn", "retinanet", "panoptic_fpn"]


def nested(name: str, value: object) -> dict[str, Any]:
    node: Any = value
    for step in reversed(name.split(".")):
        node = {step: node}
    config: dict[str, Any] = node
    return config


@cache
def read(path: Path) -> dict[str, Any]:
    return read_yaml_config(path)


def is_rejected(config: dict[str, Any]) -> bool:
    try:
        parse_config(config)
    except UnsupportedConfigError:
        return True
    return False


@pytest.mark.parametrize("model", EXHAUSTIVE)
def test_only_config_errors_leave_the_reader(model: str) -> None:
    base = read(CONFIGS / f"{model}.yaml")
    sections = {name.rpartition(".")[0] for name in KEYS} - {""}
    configs = [
        merge(base, nested(name, value))
        for name in (*KEYS, *sections)
        for value in (*WRONG.values(), *ODD)
    ]
    assert sum(map(is_rejected, configs)) > len(KEYS) * len(WRONG) / 4


@pytest.mark.parametrize("name", KEYS)
def test_a_wrong_value_is_named_where_its_key_is_read(name: str) -> None:
    reader = next((model for model in KEYED if reads(model, name)), None)
    assert reader is not None, f"no model reads {name}"
    for value in WRONG.values():
        if value == [] and name in MAY_BE_EMPTY:
            continue
        with pytest.raises(UnsupportedConfigError) as raised:
            parse_config(merge(read(CONFIGS / f"{reader}.yaml"), nested(name, value)))
        assert any(line.startswith(f"{name}: {value!r} (") for line in raised.value.problems)


def reads(model: str, name: str) -> bool:
    try:
        parse_config(merge(read(CONFIGS / f"{model}.yaml"), nested(name, OPAQUE)))
    except UnsupportedConfigError as error:
        return any(line.startswith(f"{name}: ") for line in error.problems)
    return False


def leaves(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of all nodes below a node."""
    items = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, value in items:
        yield (*path, key)
        yield from leaves(value, (*path, key))


def replaced(node: Any, path: tuple[str | int, ...], value: object) -> Any:
    if not path:
        return value
    step, *rest = path
    copy = dict(node) if isinstance(node, dict) else list(node)
    copy[step] = replaced(node[step], tuple(rest), value)  # type: ignore[index]
    return copy


def test_only_config_errors_leave_the_reader_of_lazy_configs() -> None:
    config = read_saved_config(CONFIGS / "cascade_mask_rcnn_vitdet.yaml")
    paths = list(leaves(config))
    assert len(paths) > 100
    configs = [replaced(config, path, value) for path in paths for value in (*WRONG.values(), *ODD)]
    assert sum(map(is_rejected, configs)) > len(paths)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (
            {"MODEL.FPN.NORM": "GN", "MODEL.FPN.OUT_CHANNELS": 100},
            "MODEL.FPN.OUT_CHANNELS: 100 (must be a multiple of 32 with MODEL.FPN.NORM GN)",
        ),
        (
            {"MODEL.ROI_MASK_HEAD.NORM": "GN", "MODEL.ROI_MASK_HEAD.CONV_DIM": 48},
            "MODEL.ROI_MASK_HEAD.CONV_DIM: 48 (must be a multiple of 32",
        ),
        (
            {"MODEL.RESNETS.NORM": "GN", "MODEL.RESNETS.STEM_OUT_CHANNELS": 33},
            "MODEL.RESNETS.STEM_OUT_CHANNELS: 33 (must be a multiple of 32",
        ),
        (
            {
                "MODEL.RESNETS.NORM": "GN",
                "MODEL.RESNETS.STEM_OUT_CHANNELS": 32,
                "MODEL.RESNETS.RES2_OUT_CHANNELS": 32,
                "MODEL.RESNETS.NUM_GROUPS": 2,
                "MODEL.RESNETS.WIDTH_PER_GROUP": 24,
            },
            "MODEL.RESNETS.WIDTH_PER_GROUP: 24 (must be a multiple of 32 after multiplication by 2",
        ),
        ({"MODEL.RPN.CONV_DIMS": [256.0]}, "MODEL.RPN.CONV_DIMS: [256.0] ("),
        ({"MODEL.RPN.CONV_DIMS": [-2]}, "MODEL.RPN.CONV_DIMS: [-2] ("),
        ({"MODEL.RPN.CONV_DIMS": [64, 0]}, "MODEL.RPN.CONV_DIMS: [64, 0] ("),
        ({"MODEL.ROI_HEADS": None}, "MODEL.ROI_HEADS: None (supported: a mapping of its keys)"),
        ({"MODEL.RESNETS.RES5_DILATION": True}, "MODEL.RESNETS.RES5_DILATION: True ("),
        ({"MODEL.ROI_MASK_HEAD.NUM_CONV": 10**9}, "MODEL.ROI_MASK_HEAD.NUM_CONV: 1000000000 ("),
    ],
)
def test_values_that_cannot_be_built_are_named(keys: dict[str, Any], named: str) -> None:
    config = read(CONFIGS / "mask_rcnn_r50.yaml")
    for name, value in keys.items():
        config = merge(config, nested(name, value))
    with pytest.raises(UnsupportedConfigError) as raised:
        parse_config(config)
    assert any(line.startswith(named) for line in raised.value.problems)


def test_heads_without_layers_have_no_channels_to_normalize() -> None:
    config = read(CONFIGS / "mask_rcnn_r50.yaml")
    head = {"MODEL": {"ROI_MASK_HEAD": {"NORM": "GN", "CONV_DIM": 48, "NUM_CONV": 0}}}
    parse_config(merge(config, head))
