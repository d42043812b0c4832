"""A model in a process of its own, with nothing around it: what its memory has to be.

`python -m bench.memory.bare CONFIG CHECKPOINT PICTURE BATCH THREADS`; see `bench.memory`.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from handler.detector.native import NativeDetector
from handler.rcnn.build import build_model
from handler.rcnn.checkpoint import read_checkpoint
from handler.rcnn.config import load_config
from handler.settings import Settings

FORWARDS = 3


def main(config: str, checkpoint: str, picture: str, batch: str, threads: str) -> None:
    """Loads it, and runs the picture alone and `batch` times together, several times."""
    torch.set_num_threads(int(threads))
    device = torch.device("cpu")
    weights = read_checkpoint(Path(checkpoint))
    model = build_model(load_config(Path(config)), weights, device)
    del weights
    detector = NativeDetector(model, device, Settings(images_per_forward=int(batch)))
    pixels = np.array(Image.open(picture).convert("RGB"))
    for together in (1, int(batch)):
        for _ in range(FORWARDS):
            detector.detect([pixels] * together)


if __name__ == "__main__":
    main(*sys.argv[1:])
