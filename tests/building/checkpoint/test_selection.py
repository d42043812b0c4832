"""Select the weights of a checkpoint and normalize their names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from d2serve.building.checkpoint import open_checkpoint, read_checkpoint
from d2serve.errors import CheckpointError
from tests.building.checkpoint.saving import arrays, assert_same, save, tensors

AVERAGED = tensors("backbone.", plus=10)
PLAIN = tensors("backbone.")


def saved(tmp_path: Path, content: object) -> Path:
    return save(tmp_path / "model.pth", content)


def test_training_state_is_ignored(tmp_path: Path) -> None:
    content = {
        "model": PLAIN,
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(2)}}},
        "scheduler": {"base_lrs": [0.02], "last_epoch": 9},
        "iteration": 9,
        "best_metric": np.float64(41.0),
        "ema_decay": 0.999,
        "ema_hook": {},
    }
    checkpoint = open_checkpoint(saved(tmp_path, content))
    assert_same(checkpoint.weights, PLAIN)
    assert (checkpoint.key, checkpoint.plain_key) == ("model", None)


@pytest.mark.parametrize("key", ["model_ema", "ema", "ema_state", "EMA", "state_dict_ema"])
@pytest.mark.parametrize("plain_key", ["model", "state_dict", "model_state_dict"])
def test_averaged_weights_win_over_plain_ones(tmp_path: Path, key: str, plain_key: str) -> None:
    checkpoint = open_checkpoint(saved(tmp_path, {plain_key: PLAIN, key: AVERAGED}))
    assert_same(checkpoint.weights, AVERAGED)
    assert (checkpoint.key, checkpoint.plain_key) == (key, plain_key)


def test_averaged_weights_without_plain_ones_are_read(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(saved(tmp_path, {"model_ema": AVERAGED}))
    assert_same(checkpoint.weights, AVERAGED)
    assert (checkpoint.key, checkpoint.plain_key) == ("model_ema", None)


def test_a_key_with_ema_inside_another_word_is_not_averaged(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(saved(tmp_path, {"model": PLAIN, "schema": AVERAGED}))
    assert_same(checkpoint.weights, PLAIN)


@pytest.mark.parametrize("inner", ["module", "state", "model", "shadow"])
def test_nested_averaged_weights_are_read(tmp_path: Path, inner: str) -> None:
    content = {"model": PLAIN, "ema": {inner: AVERAGED, "decay": 0.999, "updates": 7}}
    assert_same(read_checkpoint(saved(tmp_path, content)), AVERAGED)


def test_weights_that_were_not_averaged_are_plain(tmp_path: Path) -> None:
    content = {"model": PLAIN, "ema": {"module.backbone.bias": AVERAGED["backbone.bias"]}}
    expected = {**PLAIN, "backbone.bias": AVERAGED["backbone.bias"]}
    assert_same(read_checkpoint(saved(tmp_path, content)), expected)


@pytest.mark.parametrize(("key", "expected"), [("model", PLAIN), ("ema", AVERAGED)])
def test_the_key_can_be_chosen(tmp_path: Path, key: str, expected: dict[str, Any]) -> None:
    checkpoint = open_checkpoint(saved(tmp_path, {"model": PLAIN, "ema": AVERAGED}), key)
    assert_same(checkpoint.weights, expected)
    assert checkpoint.key == key


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        pytest.param({"model": PLAIN, "ema": AVERAGED, "iteration": 1}, "model, ema", id="two"),
        pytest.param(PLAIN, "none, it is a bare dict of weights", id="bare"),
    ],
)
def test_an_unknown_key_lists_the_keys_with_weights(
    tmp_path: Path, content: object, keys: str
) -> None:
    with pytest.raises(CheckpointError, match=f"under the key 'teacher'.*: {keys}$"):
        open_checkpoint(saved(tmp_path, content), "teacher")


@pytest.mark.parametrize(
    ("teacher", "student"), [("modelTeacher", "modelStudent"), ("teacher", "student")]
)
def test_a_teacher_is_an_average_of_its_student(tmp_path: Path, teacher: str, student: str) -> None:
    of_teacher = tensors(f"{teacher}.module.backbone.", plus=10)
    path = saved(tmp_path, {"model": {**tensors(f"{student}.backbone."), **of_teacher}})
    checkpoint = open_checkpoint(path)
    assert_same(checkpoint.weights, AVERAGED)
    assert (checkpoint.key, checkpoint.plain_key) == (teacher, student)
    assert_same(open_checkpoint(path, student).weights, PLAIN)
    with pytest.raises(CheckpointError, match=f"the keys with weights: {teacher}, {student}$"):
        open_checkpoint(path, "model")


@pytest.mark.parametrize(
    "wrapper", ["module.", "model.", "modelTeacher.", "module.model.", "_orig_mod.module."]
)
def test_wrapper_prefixes_are_removed(tmp_path: Path, wrapper: str) -> None:
    content = {"model": tensors(f"{wrapper}backbone.")}
    assert_same(read_checkpoint(saved(tmp_path, content)), PLAIN)


def test_a_wrapper_of_some_names_alone_stays(tmp_path: Path) -> None:
    weights = {**tensors("module.backbone."), **tensors("head.")}
    assert_same(read_checkpoint(saved(tmp_path, weights)), weights)


def test_an_averaged_models_count_of_steps_is_left(tmp_path: Path) -> None:
    content = {"ema": {"n_averaged": torch.tensor(7), **tensors("module.backbone.", plus=10)}}
    assert_same(read_checkpoint(saved(tmp_path, content)), AVERAGED)


def test_a_recursive_pickle_terminates(tmp_path: Path) -> None:
    content: dict[str, Any] = {"extra": arrays()}
    content["model"] = content
    with pytest.raises(CheckpointError, match="'extra' is a dict"):
        read_checkpoint(save(tmp_path / "model.pkl", content))
