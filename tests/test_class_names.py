import json
from pathlib import Path

import pytest

from d2serve.metadata import (
    ClassCounts,
    ClassNames,
    ClassNamesError,
    check_class_names,
    class_names_text,
    parse_class_names,
    read_class_names,
)

BOTH = ClassNames(("cat", "dog"), ("sky",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "classes.json"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('["cat"]', ClassNames(("cat",)), id="one"),
        pytest.param(
            '["b", "a", "grüner Ball"]', ClassNames(("b", "a", "grüner Ball")), id="utf-8"
        ),
        pytest.param('{"things": ["cat", "dog"], "stuff": ["sky"]}', BOTH, id="both"),
        pytest.param('{"things": ["cat"]}', ClassNames(("cat",)), id="things"),
        pytest.param('{"stuff": ["sky", "sea"]}', ClassNames((), ("sky", "sea")), id="stuff"),
    ],
)
def test_names_come_in_the_order_of_the_file(path: Path, text: str, expected: ClassNames) -> None:
    path.write_text(text, encoding="utf-8")
    assert read_class_names(path) == expected


@pytest.mark.parametrize(
    ("content", "named"),
    [
        pytest.param(b"", "cannot be read", id="empty"),
        pytest.param(b'["cat",', "cannot be read", id="broken-json"),
        pytest.param(b'["\xff\xfe"]', "cannot be read", id="not-utf-8"),
        pytest.param(b"[" * 100_000, "cannot be read", id="too-deep"),
        pytest.param(b'"cat"', "holds a str; it must be a list of names", id="a-text"),
        pytest.param(b'{"0": "cat", "1": "dog"}', "has the key '0'; it must be", id="a-mapping"),
        pytest.param(b'{"things": ["cat"], "thing": []}', "the key 'thing'", id="an-unknown-kind"),
        pytest.param(b"{}", "has no key", id="no-kind"),
        pytest.param(b"[]", "things is no list with names", id="no-names"),
        pytest.param(b'{"things": "cat"}', "things is no list with names", id="a-text-as-things"),
        pytest.param(b'{"things": ["a"], "stuff": [3]}', "name 0 of stuff is 3", id="a-number"),
        pytest.param(b'["cat", ""]', "name 1 of things is ''", id="an-empty-name"),
    ],
)
def test_a_file_without_names_is_told_what_is_wrong(path: Path, content: bytes, named: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ClassNamesError, match=rf"classes\.json.*{named}"):
        read_class_names(path)


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(ClassNamesError, match=r"classes\.json"):
        read_class_names(path)


def test_as_many_names_as_classes_pass() -> None:
    check_class_names(BOTH, ClassCounts(2, 1), "names.json")


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        (
            ClassCounts(80, 1),
            "2 names of things, but the config's MODEL.ROI_HEADS.NUM_CLASSES is 80",
        ),
        (
            ClassCounts(80, 1, things_key="MODEL.RETINANET.NUM_CLASSES"),
            "2 names of things, but the config's MODEL.RETINANET.NUM_CLASSES is 80",
        ),
        (
            ClassCounts(2, 54),
            "1 names of stuff, but the config's MODEL.SEM_SEG_HEAD.NUM_CLASSES is 54",
        ),
        (ClassCounts(2), "1 names of stuff, but the model has no stuff"),
        (ClassCounts(0, 1), "2 names of things, but the model has no things"),
    ],
)
def test_a_wrong_count_is_told_with_both_numbers_and_the_configs_key(
    counts: ClassCounts, told: str
) -> None:
    with pytest.raises(ClassNamesError) as raised:
        check_class_names(BOTH, counts, "names.json")
    assert str(raised.value) == f"names.json holds {told}"


@pytest.mark.parametrize(
    ("names", "content"),
    [
        (ClassNames(("cat", "dog")), ["cat", "dog"]),
        (BOTH, {"things": ["cat", "dog"], "stuff": ["sky"]}),
        (ClassNames((), ("sky",)), {"stuff": ["sky"]}),
    ],
)
def test_what_is_written_is_read_again(names: ClassNames, content: object) -> None:
    text = class_names_text(names)
    assert json.loads(text) == content
    assert parse_class_names(text, "classes.json") == names
