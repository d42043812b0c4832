"""Send requests with the sagemaker SDK's serializers; runs where the SDK is installed.

    python conversation.py URL IMAGE.png

Prints a line of JSON for each serializer: the results of all deserializers.
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


def send(url: str, serializer: Any, deserializer: Any, data: Any) -> Any:
    """Send a request with the headers that the SDK's Predictor sets; return the result."""
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


def requests_of(png: Path, array: "np.ndarray[Any, Any]") -> Iterator[tuple[str, Any, Any]]:
    """Names, serializers and data; all encode the same image."""
    text = b64encode(png.read_bytes()).decode()
    yield "numpy", NumpySerializer(), array
    yield "numpy-float", NumpySerializer(dtype=np.float32), array / 255
    yield "json-array", JSONSerializer(), array
    yield "json-document", JSONSerializer(), {"image": text}
    yield "json-lines", JSONLinesSerializer(), [{"image": text}]
    yield "json-lines-of-lists", JSONLinesSerializer(), [array.tolist()]
    yield "identity", IdentitySerializer("image/jpeg"), png.read_bytes()


def main(url: str, png: Path, npy: Path) -> None:
    """Combine every serializer with every deserializer."""
    for name, serializer, data in requests_of(png, np.load(npy)):
        rows = send(url, serializer, NumpyDeserializer(), data)
        found = send(url, serializer, JSONDeserializer(), data)
        lines = send(url, serializer, JSONLinesDeserializer(), data)
        results = {"numpy": rows.tolist(), "json": found, "json-lines": lines}
        print(json.dumps({"serializer": name, **results}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
