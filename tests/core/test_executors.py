"""Where the stages of a request run."""

import threading
from concurrent.futures import Future

import torch

from d2serve.serving.process import Inline, start_executor


def test_one_thread_is_the_callers() -> None:
    executor = start_executor(1)
    future: Future[threading.Thread] = executor.submit(threading.current_thread)
    assert future.done()
    assert future.result() is threading.current_thread()


def test_arguments_are_handed_on() -> None:
    assert Inline().submit(int, "11", base=2).result() == 3


def test_torch_on_the_threads_takes_none_of_its_own_and_keeps_the_callers() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        executor = start_executor(2)
        meeting = threading.Barrier(2)

        def threads_of_torch() -> int:
            meeting.wait(20)
            return torch.get_num_threads()

        futures = [executor.submit(threads_of_torch) for _ in range(2)]
        assert [future.result() for future in futures] == [1, 1]
        assert torch.get_num_threads() == 3
        later: list[int] = []
        other = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert later == [3]
    finally:
        torch.set_num_threads(before)
