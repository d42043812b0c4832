"""Who has hung up, as workers read it that share a file with the front door."""

from pathlib import Path

import pytest

from d2serve.servers.torchserve.proxy.shared_files import CELLS, Departures


def test_a_client_is_there_until_it_goes(tmp_path: Path) -> None:
    door, worker = Departures(tmp_path / "gone"), Departures(tmp_path / "gone")
    first, second = door.next_number(), door.next_number()
    assert not worker.holds(str(first))
    door.add(first)
    assert worker.holds(str(first))
    assert not worker.holds(str(second))


def test_whoever_shares_a_cell_seems_to_be_there(tmp_path: Path) -> None:
    door = Departures(tmp_path / "gone")
    numbers = [door.next_number() for _ in range(CELLS + 1)]
    door.add(numbers[0])
    assert not door.holds(str(numbers[-1]))
    door.add(numbers[-1])
    assert not door.holds(str(numbers[0]))
    for number in numbers:
        door.add(number)
    assert (tmp_path / "gone").stat().st_size == 8 * CELLS


def test_a_door_after_another_gives_other_numbers(tmp_path: Path) -> None:
    before = Departures(tmp_path / "gone")
    number = [before.next_number() for _ in range(1000)][-1]
    assert Departures(tmp_path / "gone").next_number() > number


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", "²", "9" * 19, "9" * 20, "9" * 5000])
def test_what_is_no_number_is_nobodys(tmp_path: Path, text: str) -> None:
    departures = Departures(tmp_path / "gone")
    departures.add(0)
    assert not departures.holds(text)
