"""Work of many images on several threads, as the threads of a worker share it: masks to RLE, to
polygons and to JSON, and decoding with resizing; and masks to RLE in several processes."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context

import torch

from bench import upstream
from bench.comparison import OURS, Calls, Comparison
from bench.stages.images import RLE_BASELINE, as_json, decode, detections
from bench.workloads import JPEG, Scale, encode_image, image_of, size_text
from d2serve.building.config import load_config
from d2serve.detections import Detections
from d2serve.messages import Part
from d2serve.model.preprocessing import resize_image

THREADS = PROCESSES = (1, 2, 4)
IMAGES, QUICK_IMAGES = 32, 4
# With more images, the time until all processes have started on theirs weighs less.
IMAGES_OF_PROCESSES = 256
DECODED = 8
NOTE = "ratio below 1: the row is faster than the first"


def scaling(scale: Scale) -> Iterator[Comparison]:
    """A comparison of numbers of threads for each kind of work, of images of the first size."""
    size_wh = scale.sizes_wh[0]
    found, size = detections(size_wh[::-1], scale.instances), size_text(size_wh)
    count = QUICK_IMAGES if scale.quick else IMAGES
    work: dict[str, Callable[[], object]] = {
        "RLE": found.masks_rle,
        "polygons": found.masks_polygons,
        "JSON with RLE": partial(as_json, image_of(size_wh), found),
    }
    for name, one in work.items():
        baseline = partial(upstream.paste_to_rle, found) if upstream.installed() else None
        case = f"{count} images of {scale.instances} masks to {name}, {size}"
        yield _comparison(case, one, count, baseline if name == "RLE" else None)
    part = Part(JPEG, encode_image(image_of(size_wh)))
    config = load_config(scale.model.config).input

    def prepare() -> object:
        return [resize_image(image, config) for image in decode(part).images]

    yield _comparison(f"{DECODED} JPEGs decoded and resized, {size}", prepare, DECODED, None)


def processes(scale: Scale) -> Iterator[Comparison]:
    """A comparison of numbers of processes, with one torch thread each, for masks to RLE."""
    size_wh = scale.sizes_wh[0]
    found, size = detections(size_wh[::-1], scale.instances), size_text(size_wh)
    count = QUICK_IMAGES if scale.quick else IMAGES_OF_PROCESSES
    calls: Calls = {}
    with ExitStack() as open_pools:
        for number in PROCESSES:
            pool = ProcessPoolExecutor(number, get_context("spawn"), torch.set_num_threads, (1,))
            open_pools.enter_context(pool)
            calls[f"{OURS}, processes: {number}"] = partial(_encode, pool, number, found, count)
        case = f"{count} images of {scale.instances} masks to RLE, {size}"
        yield Comparison("processes", case, calls, images=count, note=NOTE)


def _encode(pool: Executor, number: int, found: Detections, count: int) -> Sequence[object]:
    """Encode the masks `count` times, an equal part in each of a number of processes."""
    parts = [count // number] * number
    return list(pool.map(partial(_encode_repeatedly, found), parts))


def _encode_repeatedly(found: Detections, count: int) -> object:
    return [found.masks_rle() for _ in range(count)][-1]


def _comparison(
    case: str, one: Callable[[], object], count: int, baseline: Callable[[], object] | None
) -> Comparison:
    calls: Calls = {
        f"{OURS}, {_threads(each)}": partial(_run, one, count, each) for each in THREADS
    }
    if baseline is not None:
        for each in THREADS:
            calls[f"{RLE_BASELINE}, {_threads(each)}"] = partial(_run, baseline, count, each)
    return Comparison("scaling", case, calls, images=count, note=NOTE)


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _run(one: Callable[[], object], count: int, threads: int) -> Sequence[object]:
    """Run it `count` times on several threads, with one torch thread in each."""
    own = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1)) as pool:
        results = list(pool.map(lambda _: one(), range(count)))
    torch.set_num_threads(own)
    return results
