from collections.abc import Hashable, Iterator, Sequence

import pytest

from d2serve.detector.batching import group


@pytest.mark.parametrize(
    ("keys", "limit", "expected"),
    [
        pytest.param("", 4, [], id="nothing"),
        pytest.param("a", 1, [[0]], id="one"),
        pytest.param("aaa", 3, [[0, 1, 2]], id="all-alike-up-to-the-limit"),
        pytest.param("aaaa", 3, [[0, 1, 2], [3]], id="one-over-the-limit"),
        pytest.param("aaa", 1, [[0], [1], [2]], id="one-at-a-time"),
        pytest.param("abc", 8, [[0], [1], [2]], id="none-alike"),
        pytest.param("abab", 8, [[0, 2], [1, 3]], id="two-kinds-interleaved"),
        pytest.param("baabab", 2, [[1, 2], [0, 3], [4], [5]], id="interleaved-over-the-limit"),
        pytest.param([(32, 64), (64, 32), (32, 64)], 8, [[0, 2], [1]], id="sizes"),
    ],
)
def test_equal_keys_run_together_up_to_the_limit(
    keys: Sequence[Hashable], limit: int, expected: list[list[int]]
) -> None:
    groups = list(group(keys, lambda key: key, limit))
    assert [[position for position, _ in together] for together in groups] == expected
    assert all(keys[position] == item for together in groups for position, item in together)


def test_a_full_group_waits_for_no_other_item() -> None:
    taken: list[str] = []

    def items() -> Iterator[str]:
        for item in "abaab":
            taken.append(item)
            yield item

    groups = group(items(), lambda item: item, 2)
    assert next(groups) == [(0, "a"), (2, "a")]
    assert taken == ["a", "b", "a"]
    assert list(groups) == [[(1, "b"), (4, "b")], [(3, "a")]]
