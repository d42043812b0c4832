"""Log lines have the ids of their requests."""

import logging
import threading

import pytest

from d2serve.serving.log_context import install_request_ids, request_context


def lines_of(*ids: str, message: str = "text", error: Exception | None = None) -> list[str]:
    """The lines of a record that is logged for these requests."""
    handler = logging.StreamHandler()
    install_request_ids(handler)
    info = None if error is None else (type(error), error, error.__traceback__)
    record = logging.LogRecord("d2serve", logging.ERROR, "", 0, message, (), info)
    with request_context(*ids):
        return handler.format(record).split("\n")


def raised(message: str) -> Exception:
    try:
        raise ValueError(message)
    except ValueError as error:
        return error


def test_line_has_the_request_id() -> None:
    assert lines_of("42") == ["[42] text"]


def test_line_of_a_batch_has_the_ids_of_all_requests() -> None:
    assert lines_of("1", "2") == ["[1,2] text"]


@pytest.mark.parametrize("ids", [(), ("",), ("", "")])
def test_line_without_a_request_is_unchanged(ids: tuple[str, ...]) -> None:
    assert lines_of(*ids) == ["text"]


def test_each_line_of_a_traceback_has_the_request_id() -> None:
    lines = lines_of("42", message="first\nsecond", error=raised("line\nbreak\u2028end"))
    assert len(lines) > 6
    assert all(line.startswith("[42] ") for line in lines)
    assert lines[0] == "[42] first"
    assert lines[-1] == "[42] end"


def test_format_of_the_handler_is_kept() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    install_request_ids(handler)
    install_request_ids(handler)
    record = logging.LogRecord("d2serve", logging.INFO, "", 0, "text", (), None)
    with request_context("42"):
        assert handler.format(record) == "[42] INFO text"


def test_contexts_are_nested_and_end_with_their_block() -> None:
    with request_context("1"):
        with request_context("2"):
            assert lines_of("3") == ["[3] text"]
        with pytest.raises(KeyError), request_context("4"):
            raise KeyError
        assert format_here() == "[1] text"
    assert format_here() == "text"


def test_context_belongs_to_one_thread() -> None:
    other: list[str] = []
    with request_context("1"):
        thread = threading.Thread(target=lambda: other.append(format_here()))
        thread.start()
        thread.join()
    assert other == ["text"]


def format_here() -> str:
    """A record, as it is formatted in the current context."""
    handler = logging.StreamHandler()
    install_request_ids(handler)
    return handler.format(logging.LogRecord("d2serve", logging.INFO, "", 0, "text", (), None))
