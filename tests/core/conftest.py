"""Ends the threads of the pipelines that tests create."""

from collections.abc import Iterator
from threading import Thread

import pytest

from tests.core import requests
from tests.core.stepping import TIMEOUT_S, SteppedDetector


@pytest.fixture(autouse=True)
def _pipelines_are_closed() -> Iterator[None]:
    """A pipeline that cannot be closed fails its test, and does not block the others."""
    yield
    threads = []
    while requests.OPENED:
        opened = requests.OPENED.pop()
        if isinstance(opened.detector, SteppedDetector):
            opened.detector.run_freely()
        threads.append(Thread(target=opened.close, daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert not any(thread.is_alive() for thread in threads), "a pipeline does not close"
