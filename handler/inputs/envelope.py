"""What a request's body holds, before any picture is decoded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from handler.errors import RequestError
from handler.messages import Part
from handler.wrapping import Wrapping

# An encoded image or an NPY file, an array out of lists, or why there is neither in this place.
Item: TypeAlias = Part | npt.NDArray[np.generic] | RequestError


@dataclass(frozen=True)
class Envelope:
    """What a body holds.

    Attributes:
        items: in the order sent; each may hold several pictures.
        parameters: options beside the pictures.
        wrapping: how the answer has to be wrapped.
    """

    items: tuple[Item, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    wrapping: Wrapping = field(default_factory=Wrapping)
