"""Peer (b): the script that a user of AWS's toolkit writes, which the peer's package ships."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from bench.peers.predictor import Prediction, Predictor, load_predictor
from handler.pictures import Picture


def model_fn(model_dir: str) -> Predictor:
    """Loads the unpacked package."""
    return load_predictor(Path(model_dir))


def input_fn(body: bytes, content_type: str) -> Picture:
    """An encoded picture -> UInt8[H, W, 3] RGB.

    Raises:
        ValueError: it is declared as something else.
    """
    if not content_type.startswith("image/"):
        raise ValueError(f"expected a picture, got {content_type}")
    return np.array(Image.open(io.BytesIO(body)).convert("RGB"))


def predict_fn(picture: Picture, predict: Predictor) -> Prediction:
    """One picture through the network."""
    return predict(picture)


def output_fn(prediction: Prediction, accept: str) -> str:
    """JSON, whatever is accepted."""
    return prediction.as_json()
