"""Request deadlines: reject requests that have waited longer than their clients wait."""

import math
import time
from collections.abc import Callable, Mapping

from d2serve.errors import bad_request, overloaded
from d2serve.messages import ARRIVED

TIMEOUT = "x-d2serve-timeout-ms"
HINT = f"send milliseconds, as in {TIMEOUT}: 2000"


def check_patience(
    headers: Mapping[str, str],
    longest_wait_s: float,
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Refuses a request that arrived too long ago.

    When it arrived is known behind a front door alone; elsewhere nothing is refused.

    Args:
        headers: names in lower case.
        longest_wait_s: how long any client waits; 0 where they wait for ever. A client may name a
            shorter time of its own.
        now: seconds of the clock by which a front door says when a request arrived.

    Raises:
        RequestError: 503, it has waited too long; or 400, the client's time is no number.
    """
    limits = [longest_wait_s] if longest_wait_s else []
    if TIMEOUT in headers:
        limits.append(_milliseconds(headers[TIMEOUT]) / 1000)
    arrived = _number(headers.get(ARRIVED, ""))
    if limits and not math.isnan(arrived) and now() - arrived > min(limits):
        raise overloaded(f"the request has waited longer than {min(limits):g} s")


def _milliseconds(text: str) -> float:
    value = _number(text)
    if not 0 < value < math.inf:
        raise bad_request(f"{TIMEOUT} is no positive number", HINT)
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
