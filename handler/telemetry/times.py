"""How long the stages of one request took."""

import time
from dataclasses import dataclass


class Stopwatch:
    """Milliseconds since it was made."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def elapsed_ms(self) -> float:
        """Milliseconds so far."""
        return (time.perf_counter() - self._started) * 1000.0


@dataclass(frozen=True)
class StageTimes:
    """Stage times of one request in milliseconds.

    `batch` is the number of pictures that went through the network together with this request's,
    0 where none got that far.
    """

    decode_ms: float
    forward_ms: float = 0.0
    encode_ms: float = 0.0
    batch: int = 0

    def server_timing(self) -> str:
        """The value of a Server-Timing header (W3C Server Timing)."""
        stages = {"decode": self.decode_ms, "forward": self.forward_ms, "encode": self.encode_ms}
        metrics = [f"{name};dur={elapsed_ms:.2f}" for name, elapsed_ms in stages.items()]
        return ", ".join([*metrics, f'batch;desc="{self.batch}"'])
