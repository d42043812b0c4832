"""State of one connection: requests and responses so far, and timeouts."""

import time
from collections.abc import Callable

from d2serve.errors import RequestError
from d2serve.servers.torchserve.proxy.http1 import RequestStream
from d2serve.servers.torchserve.proxy.limits import Limits, Pace, Stage
from d2serve.servers.torchserve.proxy.responses import ResponseStream, error_response, stalled

LAST = (("connection", "close"),)


class Dialogue:
    """Both sides' words, of which it changes a few, without the connections that carry them.

    Args:
        client: the connection's number.
        is_ready: whether any worker can take requests.
        limits: how long the client may take for each step.
        untaken: how many bytes of its answers the client has not taken yet.

    Attributes:
        error: what the client is to hear in place of the answer that it waits for.
        ended: whether the last word has been said.
    """

    def __init__(
        self, client: int, is_ready: Callable[[], bool], limits: Limits, untaken: Callable[[], int]
    ) -> None:
        self.error: RequestError | None = None
        self.ended = False
        self._requests = RequestStream(client)
        self._responses = ResponseStream(is_ready)
        self._moved_bytes = 0
        self._untaken = untaken
        self._pace = Pace(limits, time.monotonic)

    def to_server(self, chunk: bytes) -> bytes:
        """Takes what the client has sent; gives what goes on to TorchServe."""
        self._moved_bytes += len(chunk)
        passed = self._requests.feed(chunk, time.monotonic())
        if self._requests.blind:
            self._responses.limit = self._requests.understood
        return passed

    def to_client(self, chunk: bytes) -> bytes:
        """Takes what TorchServe has sent; gives what goes on to the client."""
        self._moved_bytes += len(chunk)
        return self._responses.feed(chunk)

    def last_words(self, error: RequestError) -> bytes:
        """What the client hears at the end: the rest of an answer, or why it gets none."""
        if rest := self._responses.rest():
            return rest
        owed = self.error or (error if self._waits else None)
        if owed is None or self._responses.blind or self._responses.within:
            return b""
        return error_response(owed, LAST)

    @property
    def first_line(self) -> bytes:
        """Of the last request's head."""
        return self._requests.first_line

    @property
    def is_over(self) -> bool:
        """Whether the client has the answer after which it wanted the connection to end.

        TorchServe keeps connections open after a good answer, whatever the client has asked for.
        """
        return self._requests.last is not None and self._responses.complete >= self._requests.last

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way, or its answer is, as far as can be told."""
        # What has been said last may still be on its way.
        return self._untaken() > 0 or (not self.ended and (self._requests.blind or self._waits))

    @property
    def stage(self) -> Stage:
        """What it waits for."""
        if self.ended:
            return Stage.END
        if self._requests.blind:
            return Stage.BLIND
        if self._requests.in_body:
            return Stage.BODY
        if self._untaken():
            return Stage.CLIENT
        if self._waits:
            return Stage.SERVER
        if self._requests.in_head:
            return Stage.HEAD
        return Stage.NEXT if self._requests.understood else Stage.FIRST

    @property
    def since(self) -> float:
        """When it came to this stage, or last went on in it; as `time.monotonic` has it."""
        return self._pace.since

    def stalls(self) -> bool:
        """Whether its client keeps the server waiting for too long; to be asked every second."""
        stage = self.stage
        turn = self._requests.understood + self._responses.complete
        if not self._pace.is_overdue(stage, turn, self._moved_bytes - self._untaken()):
            return False
        if stage is Stage.HEAD or (stage is Stage.BODY and self._waits):
            self.error = stalled()
        return True

    @property
    def _waits(self) -> bool:
        return self._requests.understood > self._responses.complete
