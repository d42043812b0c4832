"""The list of differences between the servers: complete, documented, and used by tests."""

import re
from pathlib import Path

import pytest

from tests.serving.contract.platforms import (
    DIFFERENCES,
    SERVERS,
    TITLES,
    Difference,
    as_table,
    difference_of,
    row_of,
    supports,
)

NAME = re.compile(r"\w+")


def test_the_page_has_the_list(repo_root: Path) -> None:
    page = (repo_root / "docs" / "api.md").read_text(encoding="utf-8")
    section = page.split("## Differences between servers\n")[1].split("\n## ")[0]
    table = "\n".join(as_table())
    assert table in section, f"replace the table of docs/api.md by:\n\n{table}"


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda each: each.feature)
def test_every_difference_has_a_reason_and_a_test_that_requires_it_to_fail(
    repo_root: Path, difference: Difference
) -> None:
    assert difference.feature
    assert difference.reason
    assert set(difference.servers) <= set(SERVERS) == set(TITLES)
    folder = repo_root / "tests" / "serving" / "contract"
    code = "".join(file.read_text(encoding="utf-8") for file in folder.glob("test_*.py"))
    defined = set(re.findall(r"^def (test_\w+)\(", code, re.MULTILINE))
    for row in (*difference.rows, *difference.unsent):
        start = NAME.match(row)
        assert start
        assert any(name.startswith(start[0]) for name in defined), f"no test is named {row}"


def test_a_difference_is_that_of_one_server_and_one_row() -> None:
    [difference, *_] = DIFFERENCES
    name = difference.rows[0].rstrip("*")
    assert difference_of("torchserve", f"{name}[torchserve-a]") is difference
    assert difference_of("toolkit", f"{name}[a-toolkit]") is difference
    assert supports("asgi", f"{name}[asgi]")
    assert supports("torchserve", "test_another[torchserve]")


def test_some_rows_are_not_sent() -> None:
    test = "test_a_body[ray-container-/predictions/{model}]"
    difference = difference_of("ray-container", test)
    assert difference
    assert not difference.is_sent(row_of("ray-container", test))
    shown = "test_every_route_accepts_an_image[ray-container-/predictions/{model}]"
    assert difference_of("ray-container", shown) is difference
    assert difference.is_sent(row_of("ray-container", shown))
