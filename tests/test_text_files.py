"""Every text file that a user writes is read in the usual encodings, or rejected in one line."""

import codecs
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from d2serve.building.lazy_yaml import read_lazy_config
from d2serve.building.yaml_config import read_yaml_config
from d2serve.errors import D2ServeError
from d2serve.metadata import read_class_names
from d2serve.servers.asgi.token import given_token
from d2serve.servers.torchserve.launcher.config import read_properties
from d2serve.serving.model_config import read_content
from d2serve.text_files import decode_text

Read = Callable[[Path], Any]
READERS: dict[str, tuple[str, str, Read, Any]] = {
    "config": ("c.yaml", "NAME: naïve\n", read_yaml_config, {"NAME": "naïve"}),
    "lazy config": (
        "l.yaml",
        "model: {name: naïve}\n",
        read_lazy_config,
        {"model": {"name": "naïve"}},
    ),
    "model config": ("model-config.yaml", "name: naïve\n", read_content, {"name": "naïve"}),
    "class names": (
        "classes.json",
        '["naïve"]',
        lambda path: list(read_class_names(path).things),
        ["naïve"],
    ),
}
ENCODINGS = {
    "UTF-8": lambda text: text.encode(),
    "UTF-8 with a mark": lambda text: text.encode("utf-8-sig"),
    "UTF-16 of Windows": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "UTF-16 big-endian": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "Windows' line ends": lambda text: text.replace("\n", "\r\n").encode(),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", READERS)
def test_the_usual_encodings_are_read(tmp_path: Path, kind: str, encoding: str) -> None:
    name, text, read, expected = READERS[kind]
    (tmp_path / name).write_bytes(ENCODINGS[encoding](text))
    assert read(tmp_path / name) == expected


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "cp437"])
@pytest.mark.parametrize("kind", READERS)
def test_another_encoding_is_named_with_file_and_line(
    tmp_path: Path, kind: str, encoding: str
) -> None:
    name, text, read, _ = READERS[kind]
    (tmp_path / name).write_bytes(b"\n" + text.encode(encoding))
    with pytest.raises(
        D2ServeError, match=rf"{name}.* is not.* UTF-8: line 2 has the byte 0x.*iconv"
    ) as raised:
        read(tmp_path / name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["config", "lazy config", "model config"])
@pytest.mark.parametrize(
    "comment",
    [
        b"# caf\xe9\n",
        b"\n  # \xff\xfe\xe9\n",
        b"ADDED: 1 # na\xefve\n",
        b"ADDED: '# 1' # \x93\x94\n",
    ],
)
def test_comments_may_have_any_encoding(tmp_path: Path, kind: str, comment: bytes) -> None:
    name, text, read, expected = READERS[kind]
    (tmp_path / name).write_bytes(text.encode() + comment)
    added = set(read(tmp_path / name)) - {"ADDED"}
    assert added == set(expected)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"NAME: 'a # \xe9'\n", id="in quotes"),
        pytest.param(b"NAME: a#\xe9\n", id="a number sign in a word"),
        pytest.param(b"\xe9: 1\n", id="a key"),
        pytest.param(b"NAME: !t\xe9 1\n", id="a tag"),
        pytest.param(b"NAME: &\xe9 1\n", id="an anchor"),
        pytest.param(b"NAME: |\n  # \xe9\n", id="a block"),
    ],
)
def test_a_value_of_another_encoding_is_never_changed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(D2ServeError, match=r"c\.yaml"):
        read_yaml_config(tmp_path / "c.yaml")


def test_a_base_of_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_bytes(b"NAME: \xe9\n")
    (tmp_path / "c.yaml").write_text("_BASE_: base.yaml\n")
    with pytest.raises(D2ServeError, match=r"base\.yaml cannot be read: it is not UTF-8"):
        read_yaml_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("encoding", ["UTF-8 with a mark", "UTF-16 of Windows"])
def test_a_token_of_windows_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "token").write_bytes(ENCODINGS[encoding]("0123456789\n"))
    assert given_token(tmp_path / "token") == "0123456789"


def test_a_token_of_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(b"0123456789\xe9")
    with pytest.raises(D2ServeError, match=r"token cannot be read: it is not UTF-8: line 1"):
        given_token(tmp_path / "token")


def test_properties_with_a_comment_of_latin_1_are_read(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"# caf\xe9\na=b\n")
    assert read_properties(tmp_path / "p") == {"a": "b"}


def test_a_damaged_utf_16_file_is_named() -> None:
    with pytest.raises(UnicodeError, match="byte order mark of UTF-16, but is damaged at byte 2"):
        decode_text(codecs.BOM_UTF16_LE + b"a")
