from pathlib import Path

from bench.load.answers import Answer
from bench.load.notes import BEGAN_AT, CPU_S, Notebook, Noted, read_notes

ANSWER = Answer(0.5, 0.75, 200, whole=True, name="a", digest="b", request_id="c", surplus=1)
UNANSWERED = Answer(1.0, None, 0, whole=False)


def test_what_is_noted_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    assert read_notes(notes) is None
    book = Notebook(notes, None)
    assert read_notes(notes) is None
    book.fact(BEGAN_AT, 1000.0)
    book.answer(ANSWER)
    assert read_notes(notes) == Noted([ANSWER], 1000.0, None)
    book.answer(UNANSWERED)
    book.fact(CPU_S, 0.25)
    assert read_notes(notes) == Noted([ANSWER, UNANSWERED], 1000.0, 0.25)


def test_half_a_line_is_none(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    book = Notebook(notes, None)
    book.fact(BEGAN_AT, 1000.0)
    book.answer(ANSWER)
    notes.write_text(notes.read_text()[:-5])
    assert read_notes(notes) == Noted([], 1000.0, None)


def test_each_body_is_kept_once(tmp_path: Path) -> None:
    book = Notebook(tmp_path / "notes", tmp_path)
    first, second, again = (book.keep(body) for body in (b"one", b"other", b"one"))
    assert first == again != second
    assert (tmp_path / first).read_bytes() == b"one"
    assert (tmp_path / second).read_bytes() == b"other"
    assert Notebook(tmp_path / "notes", None).keep(b"one") == ""
