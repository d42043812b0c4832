"""Talks to a server as users of the sagemaker SDK do; runs where the SDK is installed.

    python conversation.py URL PICTURE.png

Prints JSON: for each serializer and each deserializer, what came back.
"""

import json
import sys
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import requests
from sagemaker.deserializers import JSONDeserializer, JSONLinesDeserializer, NumpyDeserializer
from sagemaker.serializers import (
    IdentitySerializer,
    JSONLinesSerializer,
    JSONSerializer,
    NumpySerializer,
)


def ask(url: str, serializer: Any, deserializer: Any, data: Any) -> Any:
    """One request, with the headers that the SDK's Predictor sets."""
    accept = ", ".join(deserializer.ACCEPT)
    response = requests.post(
        url,
        data=serializer.serialize(data),
        headers={"Content-Type": serializer.CONTENT_TYPE, "Accept": accept},
        stream=True,
        timeout=120,
    )
    response.raise_for_status()
    return deserializer.deserialize(response.raw, response.headers["Content-Type"])


def questions(png: Path, array: "np.ndarray[Any, Any]") -> Iterator[tuple[str, Any, Any]]:
    """Names, serializers and data, all of the same picture."""
    text = b64encode(png.read_bytes()).decode()
    yield "numpy", NumpySerializer(), array
    yield "numpy-float", NumpySerializer(dtype=np.float32), array / 255
    yield "json-array", JSONSerializer(), array
    yield "json-document", JSONSerializer(), {"image": text}
    yield "json-lines", JSONLinesSerializer(), [{"image": text}]
    yield "json-lines-of-lists", JSONLinesSerializer(), [array.tolist()]
    yield "identity", IdentitySerializer("image/jpeg"), png.read_bytes()


def main(url: str, png: Path, npy: Path) -> None:
    """Every serializer with every deserializer."""
    for name, serializer, data in questions(png, np.load(npy)):
        rows = ask(url, serializer, NumpyDeserializer(), data)
        found = ask(url, serializer, JSONDeserializer(), data)
        lines = ask(url, serializer, JSONLinesDeserializer(), data)
        answers = {"numpy": rows.tolist(), "json": found, "json-lines": lines}
        print(json.dumps({"asked": name, **answers}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
