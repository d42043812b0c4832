from pathlib import Path

import pytest

from d2serve.servers.torchserve.launcher.config import read_properties, write_properties


@pytest.mark.parametrize(
    ("text", "properties"),
    [
        ("", {}),
        ("# a=b\n\n", {}),
        ("a=b", {"a": "b"}),
        ("  a = b \nallowed_urls=file://.*=x\n", {"a": "b", "allowed_urls": "file://.*=x"}),
        ("empty=\n", {"empty": ""}),
    ],
)
def test_read(tmp_path: Path, text: str, properties: dict[str, str]) -> None:
    path = tmp_path / "config.properties"
    path.write_text(text)
    assert read_properties(path) == properties


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    properties = {"a": "1", "address": "http://127.0.0.1:8080", "empty": ""}
    write_properties(tmp_path / "p", properties)
    assert read_properties(tmp_path / "p") == properties
