"""Peer (a): a TorchServe handler as it is written first, which the peer's archive ships.

The batch that TorchServe forms is worked off one picture at a time, and masks go out as lists.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from ts.torch_handler.base_handler import BaseHandler

from bench.peers.predictor import Prediction, load_predictor
from handler.pictures import Picture


class NaiveHandler(BaseHandler):  # type: ignore[misc]
    """`BaseHandler` with the model, the decoding and the answer filled in."""

    def initialize(self, context: Any) -> None:
        """Loads the unpacked archive."""
        self.predict = load_predictor(Path(context.system_properties["model_dir"]))
        self.initialized = True

    def preprocess(self, data: Sequence[Mapping[str, Any]]) -> list[Picture]:
        """Encoded pictures -> UInt8[H, W, 3] RGB each."""
        bodies = (row.get("data") or row.get("body") for row in data)
        return [np.array(Image.open(io.BytesIO(body or b"")).convert("RGB")) for body in bodies]

    def inference(self, data: Sequence[Picture]) -> list[Prediction]:
        """One after the other, as the predictor takes them."""
        return [self.predict(picture) for picture in data]

    def postprocess(self, data: Sequence[Prediction]) -> list[str]:
        """JSON texts, in order."""
        return [prediction.as_json() for prediction in data]
