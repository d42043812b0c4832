from pathlib import Path

import pytest

from d2serve.servers.torchserve.proxy.shared_files import (
    SLOTS,
    DisconnectTable,
    ModelState,
    RuntimeFolder,
)


def test_a_client_is_connected_until_it_is_marked(tmp_path: Path) -> None:
    proxy, worker = DisconnectTable(tmp_path / "file"), DisconnectTable(tmp_path / "file")
    first, second = proxy.next_id(), proxy.next_id()
    assert not worker.is_disconnected(str(first))
    proxy.mark(first)
    assert worker.is_disconnected(str(first))
    assert not worker.is_disconnected(str(second))


def test_only_the_last_id_of_a_slot_counts_as_disconnected(tmp_path: Path) -> None:
    table = DisconnectTable(tmp_path / "file")
    ids = [table.next_id() for _ in range(SLOTS + 1)]
    table.mark(ids[0])
    assert not table.is_disconnected(str(ids[-1]))
    table.mark(ids[-1])
    assert not table.is_disconnected(str(ids[0]))
    for client_id in ids:
        table.mark(client_id)
    assert (tmp_path / "file").stat().st_size == 8 * SLOTS


def test_a_later_proxy_uses_other_ids(tmp_path: Path) -> None:
    before = DisconnectTable(tmp_path / "file")
    client_id = [before.next_id() for _ in range(1000)][-1]
    assert DisconnectTable(tmp_path / "file").next_id() > client_id


@pytest.mark.parametrize("text", ["", "-1", "1.5", "x", "²", "9" * 19, "9" * 20, "9" * 5000])
def test_an_invalid_id_does_not_count_as_disconnected(tmp_path: Path, text: str) -> None:
    table = DisconnectTable(tmp_path / "file")
    table.mark(0)
    assert not table.is_disconnected(text)


def test_the_models_are_those_that_have_had_a_ready_worker(tmp_path: Path) -> None:
    folder, worker = RuntimeFolder(tmp_path / "run"), RuntimeFolder(tmp_path / "run")
    assert folder.models() == {}
    first, second = worker.ready_lock("a/b,c", "1.0"), worker.ready_lock("a/b,c", "2")
    other = worker.ready_lock("other", "1.0")
    first.acquire_shared()
    other.acquire_shared()
    assert folder.models() == {
        "a/b,c": ModelState(("1.0", "2"), True),
        "other": ModelState(("1.0",), True),
    }
    other.release()
    second.acquire_shared()
    first.release()
    assert folder.models() == {
        "a/b,c": ModelState(("1.0", "2"), True),
        "other": ModelState(("1.0",), False),
    }


def test_a_folder_lives_until_the_last_user_closes_it(tmp_path: Path) -> None:
    first, second = RuntimeFolder(tmp_path / "run"), RuntimeFolder(tmp_path / "run")
    first.close()
    assert (tmp_path / "run").exists()
    second.close()
    assert not (tmp_path / "run").exists()
    RuntimeFolder(tmp_path / "run").close()
    assert not (tmp_path / "run").exists()
