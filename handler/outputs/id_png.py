"""Maps of ids as pictures."""

import cv2
import numpy as np
import numpy.typing as npt

from handler.errors import not_acceptable

LONGEST_PNG_SIDE = 1_000_000


def id_png(ids: npt.NDArray[np.int32]) -> bytes:
    """A PNG of 8-bit RGB in which a pixel's id is R + 256 * G + 256 * 256 * B.

    As `panopticapi.utils.rgb2id` reads it. OpenCV's own PNG settings are its fastest, and small on
    maps, whose rows are runs of one id.

    Args:
        ids: Int32[H, W] in 0..256 ** 3 - 1.

    Raises:
        RequestError: 406 where the map is too long for libpng.
    """
    if max(ids.shape) > LONGEST_PNG_SIDE:
        raise not_acceptable(
            f"a PNG of a map has at most {LONGEST_PNG_SIDE} pixels a side",
            "accept application/x-npz",
        )
    # The bytes of an id, lowest first, are red, green and blue; the fourth is always 0.
    bytes_of_ids = np.ascontiguousarray(ids, dtype="<i4").view(np.uint8).reshape(*ids.shape, 4)
    _, encoded = cv2.imencode(".png", cv2.cvtColor(bytes_of_ids, cv2.COLOR_RGBA2BGR))
    return encoded.tobytes()
