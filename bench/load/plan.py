"""What the driver tells the load generator, in a variable of its environment."""

import json
from dataclasses import asdict, dataclass

PLAN_VARIABLE = "D2SERVE_LOAD_PLAN"


@dataclass(frozen=True)
class Plan:
    """One run of the load generator.

    Attributes:
        url: what to POST to.
        pictures: pairs of a file and the headers of the request with it.
        requests_per_s: of an open loop; 0 in a closed one.
        warm_up_seconds: of traffic before the window that is measured.
        seconds: of that window.
        timeout_seconds: how long to wait for an answer.
        result: the file that receives what was noted.
    """

    url: str
    pictures: list[tuple[str, dict[str, str]]]
    requests_per_s: float
    warm_up_seconds: float
    seconds: float
    timeout_seconds: float
    result: str

    def to_json(self) -> str:
        """The plan as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan that `to_json` wrote."""
        return cls(**json.loads(text))
