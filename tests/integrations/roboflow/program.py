"""Sends requests with roboflow's unchanged `inference-sdk`; prints JSON, and writes masks.

Arguments: URL of a server, an image, the file for the masks.
"""

import asyncio
import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import supervision
from inference_sdk import InferenceConfiguration, InferenceHTTPClient
from inference_sdk.http.errors import HTTPCallErrorError
from PIL import Image

RLE = InferenceConfiguration(response_mask_format="rle", max_batch_size=8)


def main(url: str, image: str, file: str) -> None:
    warnings.simplefilter("ignore")
    client = InferenceHTTPClient(api_url=url, api_key="any key")
    masks: dict[str, Any] = {}

    def infer(images: Any, model_id: str = "shapes/1", **options: Any) -> Any:
        with client.use_configuration(InferenceConfiguration(max_batch_size=8, **options)):
            return client.infer(images, model_id=model_id)

    one = infer(image, response_mask_format="rle")
    masks["rle"] = supervision.Detections.from_inference(one).mask
    masks["polygon"] = supervision.Detections.from_inference(infer(image)).mask
    forms = infer([image, Image.open(image), cv2.imread(image)], "shapes")
    drawn = infer([image] * 2, visualize_predictions=True)
    with client.use_configuration(RLE):
        awaited = asyncio.run(client.infer_async([image] * 3, model_id="shapes"))
    np.savez(file, **masks)
    print(
        json.dumps(
            {
                "info": client.get_server_info().name,
                "models": [each.model_id for each in client.list_loaded_models().models],
                "one": one,
                "forms": [names(each) for each in forms],
                "awaited": [names(each) for each in awaited],
                "drawn": [each["visualization"][:4] for each in drawn],
                "confident": names(infer(image, confidence_threshold=0.9)),
                "low": names(infer(image, confidence_threshold=0.0001)),
                "best": names(infer(image, confidence_threshold="best")),
                "filtered": names(infer(image, class_filter=["star"])),
                "few": names(infer(image, max_detections=2)),
                "many": names(infer(image, max_detections=3000)),
                "v0": version_0(client, image),
                "unknown_model": failure(lambda: infer(image, "horses/2")),
                "unknown_version": failure(lambda: infer(image, "shapes/7")),
                "unknown_class": failure(lambda: infer(image, class_filter=["horse"])),
                "no_model": failure(lambda: client.unload_model("shapes")),
            }
        )
    )


def names(result: dict[str, Any]) -> list[str]:
    return [each["class"] for each in result["predictions"]]


def version_0(client: InferenceHTTPClient, image: str) -> dict[str, Any]:
    """The results of version 0 of the API, in which a confidence may be a percentage."""
    with client.use_api_v0():
        with client.use_configuration(InferenceConfiguration(confidence_threshold=90)):
            found = client.infer(image, model_id="shapes/1")
        with client.use_configuration(InferenceConfiguration(format="image")):
            drawn = client.infer(image, model_id="shapes/1")
    return {"confident": names(found), "drawn": drawn["visualization"][:4]}


def failure(call: Callable[[], Any]) -> list[Any]:
    try:
        call()
    except HTTPCallErrorError as error:
        return [error.status_code, error.api_message]
    raise AssertionError("the call succeeded")


if __name__ == "__main__":
    main(*sys.argv[1:])
