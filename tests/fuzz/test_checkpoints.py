"""Mutated checkpoints: no code runs, and every failure is a documented error in one line."""

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import event, given
from hypothesis import strategies as st

from d2serve.building.checkpoint import open_checkpoint
from d2serve.errors import CheckpointError
from tests.fuzz.checkpoints import TOKENS, TRACE, WEIGHTS, calls, pickle_of, seeds, with_pickle
from tests.fuzz.mutations import PLACES, Mutation, cut, flipped, inserted, overwritten, repeated

SEEDS = seeds()
ZIPS = ("zip.pth", "averaged.pth")
MAX_MUTATIONS = 4
# Audit events of running code, of other programs and of changes to the file system.
FORBIDDEN = (
    *("exec", "compile", "os.system", "os.mkdir", "os.remove", "os.rename"),
    *("subprocess.Popen", "pickle.find_class", "ctypes.dlopen", "socket.connect"),
)
AUDITED: list[str] = []
AUDITING: list[bool] = [False]

TEXTS = st.sampled_from([*TOKENS, *calls()])
MUTATIONS: st.SearchStrategy[Mutation] = st.one_of(
    st.builds(flipped, PLACES, st.integers(0, 255)),
    st.builds(cut, PLACES, PLACES),
    st.builds(inserted, PLACES, TEXTS),
    st.builds(overwritten, PLACES, TEXTS),
    st.builds(repeated, PLACES, PLACES, st.integers(0, 4)),
)


def _audit(name: str, arguments: tuple[Any, ...]) -> None:
    if AUDITING[0] and name in FORBIDDEN:
        AUDITED.append(f"{name}{arguments!r:.100}")


@st.composite
def mutated_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A seed's name, and its bytes with up to MAX_MUTATIONS mutations."""
    name = draw(st.sampled_from(sorted(SEEDS)))
    # Other mutations of a zip file fail at its checksums.
    is_inside = name in ZIPS and draw(st.booleans())
    content = pickle_of(SEEDS[name]) if is_inside else SEEDS[name]
    for mutate in draw(st.lists(MUTATIONS, max_size=MAX_MUTATIONS)):
        content = mutate(content)
    return name, with_pickle(SEEDS[name], content) if is_inside else content


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An own working folder, in which code would leave its trace."""
    sys.addaudithook(_audit)
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, content in SEEDS.items():  # imports what the readers need
        read(folder / name, content)
    for encoding in ("cp437", "utf-8-sig", "utf-16", "raw_unicode_escape"):
        b"ab".decode(encoding)
    return folder


def read(path: Path, content: bytes) -> dict[str, torch.Tensor] | str:
    """The weights, or the message of the error."""
    path.write_bytes(content)
    try:
        return dict(open_checkpoint(path).weights)
    except CheckpointError as error:
        return str(error)


@given(file=mutated_files())
def test_a_mutated_checkpoint_runs_no_code(folder: Path, file: tuple[str, bytes]) -> None:
    name, content = file
    path = folder / name
    AUDITED.clear()
    previous = Path.cwd()
    os.chdir(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about old formats
            AUDITING[0] = True
            result = read(path, content)
    finally:
        AUDITING[0] = False
        os.chdir(previous)
    event("read" if isinstance(result, dict) else "rejected")
    assert AUDITED == []
    assert not (folder / TRACE).exists()
    if isinstance(result, str):
        assert result.startswith(f"checkpoint {path}: ")
        assert result.isprintable()
        assert len(result) < 1000
    else:
        assert all(isinstance(tensor, torch.Tensor) for tensor in result.values())


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_the_seeds_are_what_they_claim(folder: Path, name: str) -> None:
    result = read(folder / name, SEEDS[name])
    if name == "network.pth":
        assert "a pickled torch.nn.modules.linear.Linear object" in str(result)
    elif name != "blobs.pkl":
        assert isinstance(result, dict)
        assert all(torch.equal(result[key], tensor) for key, tensor in WEIGHTS.items())


@pytest.mark.parametrize("opcodes", calls())
@pytest.mark.parametrize("name", ["protocol0.pkl", "protocol2.pkl"])
def test_the_calls_are_rejected_or_skipped(folder: Path, name: str, opcodes: bytes) -> None:
    start = 2 if name == "protocol2.pkl" else 0
    content = SEEDS[name][:start] + opcodes + SEEDS[name][start:]
    read(folder / name, content)
    assert not (folder / TRACE).exists()
    assert not Path(TRACE).exists()
