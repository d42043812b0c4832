"""What the driver tells the load generator: a file that a variable of its environment names."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bench.load.requests import Group

PLAN_VARIABLE = "D2SERVE_LOAD_PLAN"


@dataclass(frozen=True)
class Plan:
    """One run of the load generator.

    Attributes:
        url: what to POST to.
        groups: what is sent.
        requests_per_s: of an open loop; 0 in a closed one.
        warm_up_seconds: of traffic before the window that is measured.
        seconds: of that window.
        timeout_seconds: how long to wait for an answer.
        notes: the file that receives what is noted, see `bench.load.notes`.
        bodies: the folder that receives each distinct body once, under its digest; "" keeps none.
    """

    url: str
    groups: Sequence[Group]
    requests_per_s: float
    warm_up_seconds: float
    seconds: float
    timeout_seconds: float
    notes: str
    bodies: str = ""

    def to_json(self) -> str:
        """The plan as text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan that `to_json` wrote."""
        content = json.loads(text)
        return cls(**{**content, "groups": [Group.of(group) for group in content["groups"]]})
