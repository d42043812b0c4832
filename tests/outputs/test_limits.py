import pytest

from d2serve.errors import RequestError
from d2serve.outputs.result import require_bytes


@pytest.mark.parametrize("size", [0, 9, 10], ids=["empty", "below", "just-as-many"])
def test_an_answer_within_the_limit_is_sent(size: int) -> None:
    require_bytes(size, most=10)


def test_a_larger_answer_is_a_413_that_says_how_to_make_it_smaller() -> None:
    with pytest.raises(RequestError, match="11 bytes; at most 10") as raised:
        require_bytes(11, most=10)
    assert (raised.value.status, raised.value.code) == (413, "too_large")
    for remedy in ("masks=none", "max_detections", "max_response_bytes in model-config.yaml"):
        assert remedy in raised.value.hint
