from pathlib import Path

import pytest

from handler.class_names import ClassNamesError, placeholder_names, read_class_names


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "classes.json"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("[]", [], id="no-classes"),
        pytest.param('["cat"]', ["cat"], id="one"),
        pytest.param('["cat", "dog", "grüner Ball"]', ["cat", "dog", "grüner Ball"], id="utf-8"),
    ],
)
def test_names_come_in_the_order_of_the_file(path: Path, text: str, expected: list[str]) -> None:
    path.write_text(text, encoding="utf-8")
    assert read_class_names(path, len(expected)) == expected


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'["cat",', id="broken-json"),
        pytest.param(b'["\xff\xfe"]', id="not-utf-8"),
        pytest.param(b'{"0": "cat", "1": "dog"}', id="a-mapping"),
        pytest.param(b'"cat"', id="a-text"),
        pytest.param(b'["cat", 1]', id="a-number-among-names"),
        pytest.param(b'["cat", ""]', id="an-empty-name"),
        pytest.param(b'["cat"]', id="too-few"),
        pytest.param(b'["cat", "dog", "bird"]', id="too-many"),
    ],
)
def test_a_file_that_is_no_list_of_that_many_names_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ClassNamesError, match=r"classes\.json"):
        read_class_names(path, 2)


def test_a_wrong_count_is_told_with_both_numbers_and_the_configs_key(path: Path) -> None:
    path.write_text('["cat"]', encoding="utf-8")
    with pytest.raises(ClassNamesError, match=r"1 names.*MODEL\.ROI_HEADS\.NUM_CLASSES is 80"):
        read_class_names(path, 80)


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(ClassNamesError, match=r"classes\.json"):
        read_class_names(path, 2)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        pytest.param(0, [], id="none"),
        pytest.param(3, ["class_0", "class_1", "class_2"], id="some"),
    ],
)
def test_placeholder_names_count_up(count: int, expected: list[str]) -> None:
    assert placeholder_names(count) == expected
