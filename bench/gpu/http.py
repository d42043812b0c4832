"""JPEGs in, JSON with RLE out, by the ASGI server, with the settings that concern a GPU."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from bench import served
from bench.baselines.servers import r50, shapes
from bench.comparison import OURS, Result, Series
from bench.loadgen.generator import ClosedLoop
from bench.loadgen.load import image_requests, measure
from bench.report import progress
from bench.workloads import Scale, encode_image, image_of
from d2serve.building.archive import DEFAULT_MODEL_CONFIG, ONE_WORKER, build_archive

Cases = Mapping[str, Mapping[str, Any]]
GPU_CASES: Cases = {
    "auto": {},
    "auto, all on the GPU": {"decode": "device", "resize": "device", "cuda_graphs": True},
    "auto, resize on the GPU": {"resize": "device"},
    "fp32": {"precision": "fp32"},
}
CPU_CASES: Cases = {"auto": {}, "fp32": {"precision": "fp32"}}
CLIENTS, QUICK_CLIENTS = (1, 32), (2,)
SECONDS, QUICK_SECONDS = 4.0, 2.0


def http(scale: Scale) -> Iterator[Result]:
    """A result for each combination of settings and number of clients."""
    if scale.device.type == "cuda":
        torch.cuda.empty_cache()
    cases = GPU_CASES if scale.device.type == "cuda" else CPU_CASES
    with tempfile.TemporaryDirectory(prefix="d2serve-gpu-") as temporary:
        folder = Path(temporary)
        image = folder / "image.jpg"
        image.write_bytes(encode_image(image_of(scale.image_wh)))
        model = (shapes if scale.quick else r50)(folder)._replace(images=(image,))
        for number, (case, changed) in enumerate(cases.items()):
            settings = DEFAULT_MODEL_CONFIG["handler"] | {"precision": "auto"} | changed
            archive = build_archive(
                *(model.config, model.checkpoint, folder / f"model-{number}.mar"),
                class_names=model.classes,
                model_config={"handler": settings, **ONE_WORKER},
            )
            with served.asgi(archive, folder / "logs") as server:
                for clients in QUICK_CLIENTS if scale.quick else CLIENTS:
                    progress(f"HTTP: {case}, {clients} clients")
                    seconds = QUICK_SECONDS if scale.quick else SECONDS
                    load = measure(
                        server.url, image_requests(model.images), ClosedLoop(clients), seconds
                    )
                    series = (Series(OURS, (load.requests_per_s,)),)
                    latency = {f"p{name}": round(each) for name, each in load.latency_ms.items()}
                    note = (
                        f"ms: {latency}; {load.failures} of {load.requests} failed; generator's "
                        f"CPU {load.generator_cpu_percent:.0f} %; ready in {server.ready_s:.1f} s"
                    )
                    facts = ("HTTP", f"{case}, {clients} clients", model.name, 1, note, series)
                    yield Result(*facts, unit="requests/s", higher_is_better=True)
