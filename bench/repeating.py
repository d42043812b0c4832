"""Something done again and again beside what is measured."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeatedly(look: Callable[[], object], every_s: float) -> Iterator[None]:
    """Looks every so many seconds, on a thread, while the block runs; first after so many."""
    done = threading.Event()

    def look_again() -> None:
        while not done.wait(every_s):
            look()

    thread = threading.Thread(target=look_again, name="sampling", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
