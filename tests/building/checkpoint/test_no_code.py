"""No opcode of a pickle runs code, wherever in a checkpoint it is."""

import copyreg
import io
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from d2serve.building import restricted_pickle
from d2serve.building.checkpoint import read_checkpoint
from d2serve.errors import CheckpointError
from tests.building.checkpoint.saving import arrays, save, tensors

# Modules that programs import only to run or to load something.
CALLS = [
    ("os", "system"),
    ("posix", "system"),
    ("nt", "system"),
    ("subprocess", "Popen"),
    ("commands", "getoutput"),
    ("builtins", "eval"),
    ("__builtin__", "eval"),
    ("builtins", "exec"),
    ("builtins", "__import__"),
    ("builtins", "open"),
    ("importlib", "import_module"),
    ("pathlib", "Path.touch"),
    ("shutil", "rmtree"),
    ("ctypes", "CDLL"),
    ("runpy", "run_path"),
    ("pickle", "loads"),
    ("_pickle", "loads"),
    ("operator", "attrgetter"),
    ("types", "FunctionType"),
    ("types", "CodeType"),
    ("functools", "reduce"),
    ("webbrowser", "open"),
    ("pty", "spawn"),
    ("asyncio.unix_events", "_UnixSubprocessTransport._start"),
]
# Functions of packages become placeholders; they are not imported either.
PACKAGE_CALLS = [
    ("torch", "load"),
    ("torch.hub", "load"),
    ("torch.storage", "UntypedStorage.from_file"),
    ("torch._C._jit", "load"),
    ("torch.utils.cpp_extension", "load"),
    ("torch.jit.unsupported_tensor_ops", "execWrapper"),
    ("numpy", "load"),
    ("numpy", "fromfile"),
    ("numpy.testing._private.utils", "runstring"),
    ("numpy.ctypeslib", "load_library"),
    ("cv2", "imwrite"),
    ("d2serve.building.restricted_pickle", "load"),
    ("not_installed.at_all", "run"),
    ("__main__", "run"),
]


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def reduced(module: str, name: str) -> bytes:
    """GLOBAL and REDUCE with the argument `touch TRACE`."""
    return f"c{module}\n{name}\n".encode() + text("TRACE") + b"\x85R"


OPCODES: dict[str, Callable[[str, str], bytes]] = {
    "GLOBAL, REDUCE": reduced,
    "STACK_GLOBAL, REDUCE": lambda module, name: (
        text(module) + text(name) + b"\x93" + text("TRACE") + b"\x85R"
    ),
    "INST": lambda module, name: b"(" + text("TRACE") + f"i{module}\n{name}\n".encode(),
    "OBJ": lambda module, name: b"(" + f"c{module}\n{name}\n".encode() + text("TRACE") + b"o",
    "NEWOBJ": lambda module, name: f"c{module}\n{name}\n".encode() + text("TRACE") + b"\x85\x81",
    "NEWOBJ_EX": lambda module, name: (
        f"c{module}\n{name}\n".encode() + text("TRACE") + b"\x85}\x92"
    ),
    "GLOBAL, BUILD": lambda module, name: (
        f"c{module}\n{name}\n".encode() + b"}" + text("__setstate__") + text("TRACE") + b"sb"
    ),
    "a state with a function": lambda module, name: (
        b"cproject\nConfig\n)\x81}" + text("a") + reduced(module, name) + b"sb"
    ),
    "a function as an argument": lambda module, name: (
        b"ccollections\ndefaultdict\n(" + f"c{module}\n{name}\nt".encode() + b"R"
    ),
    "a method by getattr": lambda module, name: (
        b"c__builtin__\ngetattr\n"
        + f"(c{module}\n{name.partition('.')[0]}\n".encode()
        + text(name.partition(".")[2] or "__call__")
        + b"tR"
        + text("TRACE")
        + b"\x85R"
    ),
    "a result that is called": lambda module, name: (
        b"cproject\nregistry\n" + text(f"{module}.{name}") + b"\x85R" + text("TRACE") + b"\x85R"
    ),
    "through a listed function": lambda module, name: (
        b"ctorch._tensor\n_rebuild_from_type_v2\n("
        + f"c{module}\n{name}\n".encode()
        + b"N"
        + text("TRACE")
        + b"\x85NtR"
    ),
    "through copyreg": lambda module, name: (
        b"ccopy_reg\n_reconstructor\n(" + f"c{module}\n{name}\n".encode() + b"NNtR"
    ),
}


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The audit events of code that a checkpoint must not cause."""
    b"x".decode("cp437")  # the names in zip files
    for name, content in {"first.pth": tensors(), "first.pkl": print}.items():
        read(save(tmp_path / name, content))  # imports what our own reader needs
    events: list[str] = []
    monkeypatch.setitem(AUDITED, "events", events)
    return events


AUDITED: dict[str, list[str]] = {}
FORBIDDEN = (
    "os.system",
    "subprocess.Popen",
    "exec",
    "compile",
    "pickle.find_class",
    "ctypes.dlopen",
)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if "events" in AUDITED and event.startswith(FORBIDDEN):
        AUDITED["events"].append(f"{event}{arguments!r:.80}")


sys.addaudithook(_audit)


def pickled(hostile: bytes, value: Any) -> bytes:
    """A pickle {"hook": HOSTILE, "model": value} of protocol 2."""
    return (
        b"\x80\x02}" + text("hook") + hostile + b"s" + text("model") + value_opcodes(value) + b"s."
    )


def value_opcodes(value: Any) -> bytes:
    # Memo numbers of the two parts do not meet, as hostile ones have none.
    return pickle.dumps(value, 2)[2:-1]


def torch_file(path: Path, hostile: bytes) -> None:
    """A zip of torch.save whose pickle has hostile opcodes before the weights."""
    written = io.BytesIO()
    torch.save({"model": tensors()}, written)
    with zipfile.ZipFile(written) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            part = source.read(name)
            if name.endswith("data.pkl"):
                part = part[:2] + hostile + b"0" + part[2:]
            target.writestr(name, part)


def read(path: Path) -> str:
    """Read a file; the error's message, or nothing."""
    try:
        read_checkpoint(path)
    except CheckpointError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("opcodes", OPCODES)
@pytest.mark.parametrize(("module", "name"), CALLS + PACKAGE_CALLS)
def test_nothing_is_called(
    tmp_path: Path, imported: list[str], module: str, name: str, opcodes: str
) -> None:
    trace = tmp_path / "trace"
    hostile = OPCODES[opcodes](module, name).replace(
        text("TRACE"), text(f"import pathlib; pathlib.Path({str(trace)!r}).touch()")
    )
    (tmp_path / "model.pkl").write_bytes(pickled(hostile, arrays()))
    torch_file(tmp_path / "model.pth", hostile)
    modules = set(sys.modules)
    imported.clear()
    errors = [read(tmp_path / file) for file in ("model.pkl", "model.pth")]
    assert imported == []
    assert not trace.exists()
    assert {new for new in set(sys.modules) - modules if new.partition(".")[0] == module} == set()
    if (module, name) in CALLS and opcodes not in ("a result that is called",):
        assert all("could run code" in error for error in errors), errors


def test_the_audit_sees_a_call(imported: list[str]) -> None:
    pickle.loads(b"cbuiltins\neval\n(V1\ntR.")
    assert len(imported) == 3  # find_class, compile, exec


@pytest.mark.parametrize("opcode", [b"\x82\x07", b"\x83\x07\0", b"\x84\x07\0\0\0"])
def test_extensions_are_rejected(tmp_path: Path, opcode: bytes) -> None:
    copyreg.add_extension("os", "getcwd", 7)
    try:
        assert pickle.loads(b"\x80\x02\x82\x07)R.") == str(Path.cwd())
        (tmp_path / "model.pkl").write_bytes(pickled(opcode + b")R", arrays()))
        assert "damaged" in read(tmp_path / "model.pkl")
    finally:
        copyreg.remove_extension("os", "getcwd", 7)
        copyreg.clear_extension_cache()


@pytest.mark.parametrize("opcode", [b"Pname\n", b"X\1\0\0\0aQ"])
def test_persistent_ids_outside_torch_files_are_rejected(tmp_path: Path, opcode: bytes) -> None:
    (tmp_path / "model.pkl").write_bytes(pickled(opcode, arrays()))
    assert "damaged" in read(tmp_path / "model.pkl")


@pytest.mark.parametrize("constructor", restricted_pickle.CONSTRUCTORS)
def test_a_state_does_not_change_the_functions_of_this_process(
    tmp_path: Path, constructor: tuple[str, str]
) -> None:
    function = restricted_pickle.CONSTRUCTORS[constructor]
    before = dict(vars(function)), getattr(function, "__defaults__", None)
    state = b"(N}" + text("__defaults__") + b"K\1\x85" + b"s" + b"t"
    hostile = "c{}\n{}\n".format(*constructor).encode() + state + b"b"
    hostile += b"}" + text("marked") + b"K\1sb"
    (tmp_path / "model.pkl").write_bytes(pickled(hostile, arrays()))
    read(tmp_path / "model.pkl")
    assert (dict(vars(function)), getattr(function, "__defaults__", None)) == before


def test_codecs_are_limited_to_latin1(tmp_path: Path) -> None:
    hostile = b"c_codecs\nencode\n(" + text("x") + text("zlib") + b"tR"
    (tmp_path / "model.pkl").write_bytes(pickled(hostile, arrays()))
    assert "_codecs.encode with 'zlib'" in read(tmp_path / "model.pkl")


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        pytest.param(0, (100,), (1,), id="too large"),
        pytest.param(5, (2,), (1,), id="after the end"),
        pytest.param(-1, (2,), (1,), id="before the start"),
        pytest.param(0, (2,), (9,), id="too large a stride"),
        pytest.param(0, (2,), (-1,), id="backwards"),
        pytest.param(0, (2, 2), (1,), id="a stride missing"),
        pytest.param(0, (2**40, 2**40), (1, 1), id="huge"),
    ],
)
def test_a_tensor_outside_its_storage_is_rejected(
    tmp_path: Path, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    path = tmp_path / "model.pth"
    torch.save({"model": {"weight": Rebuilt(offset, size, stride)}}, path)
    assert "truncated, damaged" in read(path)


class Rebuilt:
    def __init__(self, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.arguments: tuple[Any, ...] = (
            torch.ones(6)._typed_storage(),
            offset,
            size,
            stride,
            False,
            {},
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.arguments


@pytest.mark.parametrize(
    "state",
    [
        pytest.param((1, (3, 5), "f4", False, bytes(24)), id="another shape"),
        pytest.param((1, (-1,), "f4", False, bytes(24)), id="a negative size"),
        pytest.param((1, (2**62, 2**62), "f4", False, b""), id="an overflow"),
        pytest.param((1, (6,), "f8", False, bytes(24)), id="a larger dtype"),
        pytest.param((1, (6,), "f4", False, [1, 2]), id="a list"),
        pytest.param((1,), id="too short"),
        pytest.param(7, id="a number"),
    ],
)
def test_an_array_that_does_not_match_its_bytes_is_rejected(tmp_path: Path, state: Any) -> None:
    filled = (
        tuple(np.dtype(part) if part in ("f4", "f8") else part for part in state)
        if isinstance(state, tuple)
        else state
    )
    content = pickle.dumps(
        {"model": {"weight": Stateful(filled)}, "kinds": np.dtype("f4")}, protocol=2
    )
    (tmp_path / "model.pkl").write_bytes(content)
    assert "truncated, damaged" in read(tmp_path / "model.pkl")


class Stateful:
    def __init__(self, state: Any) -> None:
        self.state = state

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild = np._core.multiarray._reconstruct  # type: ignore[attr-defined]
        return rebuild, (np.ndarray, (0,), b"b"), self.state


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a long text", b"\x80\x04\x8d" + (2**40).to_bytes(8, "little")),
        ("long bytes", b"\x80\x04\x8e" + (2**40).to_bytes(8, "little")),
        ("a long bytearray", b"\x80\x05\x96" + (2**40).to_bytes(8, "little")),
        ("a long frame", b"\x80\x04\x95" + (2**40).to_bytes(8, "little")),
        ("a long number", b"\x80\x02\x8b" + (2**31 - 1).to_bytes(4, "little")),
        ("a distant memo", b"\x80\x02Nr\xff\xff\xff\xff" + b"."),
        ("a deep list", b"\x80\x02" + b"(" * 100_000 + b"l" * 100_000 + b"."),
        ("a deep key", b"\x80\x02}" + b"N" + b"\x85" * 10_000 + b"Ns."),
    ],
)
def test_a_small_file_does_not_exhaust_the_memory(
    tmp_path: Path, name: str, content: bytes
) -> None:
    import resource

    (tmp_path / "model.pkl").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read(tmp_path / "model.pkl")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
