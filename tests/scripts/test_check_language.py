"""The wording check finds what the glossary bans, and nothing in this repository."""

from pathlib import Path

import pytest

from scripts.check_language import Text, check, document_texts, find_banned, main, python_texts


@pytest.mark.parametrize(
    ("content", "phrase"),
    [
        ("Decode a picture.", "picture"),
        ("Clients\nand Pictures.", "Pictures"),
        ("Nobody reads it.", "Nobody"),
        ("The front door closes.", "front door"),
        ("This is no image.", "is no image"),
        ("It tells whether it runs.", "tells whether"),
        ("Requests wait for so many.", "so many"),
    ],
)
def test_banned_phrases_are_found(content: str, phrase: str) -> None:
    [finding] = find_banned([Text(1, content)])
    assert finding.phrase == phrase


@pytest.mark.parametrize(
    "content", ["", "Decode an image.", "The epicture of style", "There is no image."]
)
def test_plain_sentences_pass(content: str) -> None:
    assert list(find_banned([Text(1, content)])) == []


@pytest.mark.parametrize("opening", ["What", "Which", "How", "Where", "Whoever", "Whether"])
def test_a_headless_docstring_is_found(opening: str) -> None:
    [finding, *_] = find_banned([Text(3, f"{opening} a file holds.", is_docstring=True)])
    assert (finding.line, finding.phrase) == (3, opening)


def test_docstrings_and_comments_of_a_module_are_read() -> None:
    source = '"""A module."""\n\n\ndef f() -> None:\n    """Do it."""\n    x = "picture"  # why\n'
    assert {text.content for text in python_texts(source)} == {"A module.", "Do it.", "# why"}


def test_code_blocks_of_documents_are_left_out() -> None:
    assert [t.content for t in document_texts("a\n```sh\npicture\n```\nb")] == ["a", "b"]


def test_lines_are_counted_within_a_docstring() -> None:
    [finding] = find_banned(python_texts('"""One.\n\nA picture.\n"""\n'))
    assert finding.line == 3


def test_a_finding_fails_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "handler").mkdir()
    for name in ("README.md", "SECURITY.md"):
        (tmp_path / name).write_text("Fine.\n", encoding="utf-8")
    assert main([str(tmp_path)]) == 0
    (tmp_path / "handler" / "a.py").write_text('"""What it is."""\n', encoding="utf-8")
    assert main([str(tmp_path)]) == 1
    assert "handler/a.py:1: 'What'" in capsys.readouterr().out


def test_this_repository_passes(repo_root: Path) -> None:
    assert check(repo_root) == []
