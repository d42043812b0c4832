"""Channels of decoded images and of a network's input."""

import numpy as np

from d2serve.detections import RGBImage
from d2serve.errors import unprocessable

OPAQUE = 255


def fit_channels(image: RGBImage, channels: int, channel_order: str) -> RGBImage:
    """Give a decoded image the channels that a network's preprocessing expects.

    Args:
        image: UInt8[H, W, 3] RGB or UInt8[H, W, 4], a fourth channel of any meaning.
        channels: the network's: 1, 3 or 4.
        channel_order: INPUT.FORMAT; with RGBA an image without a fourth channel is opaque.

    Returns:
        UInt8[H, W, 4] for a network of four channels, else UInt8[H, W, 3].

    Raises:
        RequestError: 422 the fourth channel is missing.
    """
    if channels < 4:
        return np.ascontiguousarray(image[:, :, :3])
    if image.shape[2] == 4:
        return image
    if channel_order != "RGBA":
        raise unprocessable(
            "the image has 3 channels, but the model takes 4",
            "send an array HxWx4 written by numpy.save, or a PNG whose alpha is the fourth channel",
        )
    alpha = np.full((*image.shape[:2], 1), OPAQUE, dtype=np.uint8)
    return np.concatenate((image, alpha), axis=2)
