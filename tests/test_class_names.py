import json
from pathlib import Path

import pytest

from d2serve.errors import ClassNamesError
from d2serve.metadata import (
    ClassCounts,
    ClassNames,
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
def test_names_keep_the_order_of_the_file(path: Path, text: str, expected: ClassNames) -> None:
    path.write_text(text, encoding="utf-8")
    assert read_class_names(path) == expected


@pytest.mark.parametrize(
    ("content", "named"),
    [
        pytest.param(b"", "cannot be read", id="empty"),
        pytest.param(b'["cat",', "cannot be read", id="broken-json"),
        pytest.param(b'["\xff\xfe"]', "cannot be read", id="not-utf-8"),
        pytest.param(b"[" * 100_000, "cannot be read", id="too-deep"),
        pytest.param(
            b'"cat"', "is neither a list nor an object; expected a list of names", id="a-text"
        ),
        pytest.param(
            b'{"0": "cat", "1": "dog"}', "has the unknown key '0'; expected a list", id="a-mapping"
        ),
        pytest.param(
            b'{"things": ["cat"], "thing": []}', "the unknown key 'thing'", id="an-unknown-kind"
        ),
        pytest.param(b"{}", "is an empty object", id="no-kind"),
        pytest.param(b"[]", "`things` is not a list with at least one name", id="no-names"),
        pytest.param(
            b'{"things": "cat"}',
            "`things` is not a list with at least one name",
            id="a-text-as-things",
        ),
        pytest.param(b'{"things": ["a"], "stuff": [3]}', r"`stuff\[0\]` is 3", id="a-number"),
        pytest.param(b'["cat", ""]', r"`things\[1\]` is ''", id="an-empty-name"),
    ],
)
def test_invalid_class_file_is_rejected_with_a_reason(
    path: Path, content: bytes, named: str
) -> None:
    path.write_bytes(content)
    with pytest.raises(ClassNamesError, match=rf"classes\.json.*{named}"):
        read_class_names(path)


def test_missing_class_file_is_named(path: Path) -> None:
    with pytest.raises(ClassNamesError, match=r"classes\.json"):
        read_class_names(path)


def test_matching_number_of_names_passes() -> None:
    check_class_names(BOTH, ClassCounts(2, 1), "names.json")


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (
            ClassCounts(80, 1),
            "`things` has length 2, but the config's MODEL.ROI_HEADS.NUM_CLASSES is 80",
        ),
        (
            ClassCounts(80, 1, things_key="MODEL.RETINANET.NUM_CLASSES"),
            "`things` has length 2, but the config's MODEL.RETINANET.NUM_CLASSES is 80",
        ),
        (
            ClassCounts(2, 54),
            "`stuff` has length 1, but the config's MODEL.SEM_SEG_HEAD.NUM_CLASSES is 54",
        ),
        (ClassCounts(2), "`stuff` has length 1, but the model has no stuff classes"),
        (ClassCounts(0, 1), "`things` has length 2, but the model has no thing classes"),
    ],
)
def test_wrong_number_of_names_is_reported_with_both_numbers_and_the_key(
    counts: ClassCounts, message: str
) -> None:
    with pytest.raises(ClassNamesError) as raised:
        check_class_names(BOTH, counts, "names.json")
    assert str(raised.value) == f"names.json: {message}; list one name per class"


@pytest.mark.parametrize(
    ("names", "content"),
    [
        (ClassNames(("cat", "dog")), ["cat", "dog"]),
        (BOTH, {"things": ["cat", "dog"], "stuff": ["sky"]}),
        (ClassNames((), ("sky",)), {"stuff": ["sky"]}),
    ],
)
def test_class_file_round_trip(names: ClassNames, content: object) -> None:
    text = class_names_text(names)
    assert json.loads(text) == content
    assert parse_class_names(text, "classes.json") == names
