"""The type of a decoded picture."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

# UInt8[H, W, 3], RGB, upright, rows from the top.
Picture: TypeAlias = npt.NDArray[np.uint8]
