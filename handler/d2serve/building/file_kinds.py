"""Recognise files by their content, to name those that are not checkpoints."""

import codecs
import zipfile
from pathlib import Path

from d2serve.building.opaque import shortened
from d2serve.errors import CheckpointError

HEAD_BYTES = 4096
# Shorter texts may be the start of anything.
MIN_TEXT = 8
TAR_MAGIC = slice(257, 262)
# Kinds that are read.
TORCH_ZIP, TORCH_LEGACY, PICKLE, SAFETENSORS = "torch zip", "torch legacy", "pickle", "safetensors"
LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
PROTOCOLS = tuple(b"\x80" + bytes([version]) for version in range(2, 6))
UNPACK = "unpack it and use the checkpoint in it"
EXPORT = (
    "an exported network without its config; use the checkpoint that training wrote, such as "
    "model_final.pth"
)
# First bytes, the kind, and what to do.
SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "a gzip file", UNPACK),
    (b"BZh", "a bzip2 file", UNPACK),
    (b"\xfd7zXZ\0", "an xz file", UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd file", UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z file", UNPACK),
    (b"Rar!", "a rar file", UNPACK),
    (b"\x89HDF\r\n", "an HDF5 file, such as of Keras", "use a checkpoint of Detectron2"),
    (b"GGUF", "a GGUF file", "use a checkpoint of Detectron2"),
    (b"\x93NUMPY", "a numpy array (.npy)", "save a dict of named arrays as .pkl or .pth"),
    (b"\x89PNG", "a PNG image", "use the model's checkpoint"),
    (b"\xff\xd8\xff", "a JPEG image", "use the model's checkpoint"),
    (b"%PDF", "a PDF document", "use the model's checkpoint"),
    (b"\x7fELF", "a program", "use the model's checkpoint"),
    (b"ptrt", "a TensorRT engine", EXPORT),
    (b"ftrt", "a TensorRT engine", EXPORT),
)
POINTER = (
    "a pointer to a file in Git LFS; fetch the file itself: `git lfs pull`, or download it from "
    "the repository's web page"
)
ANNEX = "a pointer to a file in git-annex; fetch the file itself: `git annex get`"
DOWNLOAD = (
    "the server did not send the checkpoint, but a page such as a login, a confirmation or an "
    "error; open the address in a browser, or download it with the credentials that it needs"
)


def kind_of(path: Path) -> str | None:
    """Return the kind of a file that can be read; None if its content is not known.

    Raises:
        CheckpointError: it is known, but not that of a checkpoint.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        return None
    if head.startswith(b"PK\3\4") or zipfile.is_zipfile(path):
        return _zip_kind(path)
    if head[:2] in PROTOCOLS:
        return TORCH_LEGACY if LEGACY_MAGIC in head[:32] else PICKLE
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return SAFETENSORS
    _reject(head)
    return None


def _zip_kind(path: Path) -> str | None:
    """Tell the files that are zip files apart by their members."""
    try:
        with zipfile.ZipFile(path) as packed:
            names = packed.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return TORCH_ZIP  # reported as damaged
    ends = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in ends:
        _fail("a TorchScript network (torch.jit.save)", EXPORT)
    if "data.pkl" in ends:
        return TORCH_ZIP
    if "MAR-INF/MANIFEST.json" in names:
        _fail("a model archive (.mar)", "serve it with `d2serve serve`")
    if names and all(name.endswith(".npy") for name in names):
        _fail("a numpy file of arrays (.npz)", "save a dict of named arrays as .pkl or .pth")
    listed = ", ".join(shortened(name) for name in names[:3]) or "nothing"
    _fail(f"a zip file that contains {listed}", UNPACK)
    return None


def _reject(head: bytes) -> None:
    """Raise a CheckpointError if the first bytes are those of another binary format."""
    for signature, kind, advice in SIGNATURES:
        if head.startswith(signature):
            _fail(kind, advice)
    if head[TAR_MAGIC] == b"ustar" or head.startswith(b"storages\0"):
        _fail("a tar file", f"{UNPACK}; one of PyTorch 0.1 has to be saved again")
    if head[4:8] == b"TFL3":
        _fail("a TensorFlow Lite network", EXPORT)
    if not head.strip(b"\0"):
        _fail("a file whose first bytes are all zero", "its download did not finish; repeat it")
    if head[:1] == b"\x08" and any(word in head for word in (b"onnx", b"pytorch", b"ONNX")):
        _fail("an ONNX network", EXPORT)


def _text(head: bytes) -> str | None:
    """The start of a text, in the encoding of its byte order mark; None for other content."""
    is_utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if is_utf16 else "utf-8-sig"
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        if not head.lstrip().startswith((b"<", b"{")):
            return None
        text = head.decode("latin1")
    text = text.strip()
    return text if len(text) >= MIN_TEXT and "".join(text.split()).isprintable() else None


def reject_non_binary(path: Path) -> None:
    """Raise a CheckpointError if the file is empty or text.

    Pickles may be text too, so that this is for files that could not be read otherwise.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        _fail(
            "truncated, damaged or not a checkpoint: it is empty", "copy it again from its source"
        )
    text = _text(head)
    if text is None:
        return
    start = text.lower()
    first_line = shortened(text.splitlines()[0])
    if start.startswith("version https://git-lfs"):
        _fail(POINTER)
    if "/annex/objects/" in start:
        _fail(ANNEX)
    if "<html" in start or start.startswith(("<!doctype html", "<head", "<script")):
        _fail("an HTML page", DOWNLOAD)
    if start.startswith("<"):
        _fail(f"an XML document ({first_line})", DOWNLOAD)
    if start.startswith(("{", "[")):
        _fail(f"a JSON document ({first_line})", DOWNLOAD)
    _fail(f"a text file ({first_line})", "use the file that torch.save wrote")


def _fail(kind: str, advice: str = "") -> None:
    raise CheckpointError(f"it is {kind}" + (f"; {advice}" if advice else ""))
