"""Time of a batch by operator and by kernel."""

from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from bench.comparison import synchronize
from bench.workloads import Scale, image_of

ROWS, RUNS = 45, 3


def write_profile(scale: Scale, path: Path) -> None:
    """Write tables of the operators of a batch, by time on the CPU and on the device."""
    image, precision = image_of(scale.image_wh), scale.precisions[0]
    detector = scale.detector(scale.model, precision)
    activities = [ProfilerActivity.CPU]
    orders = ["self_cpu_time_total"]
    if scale.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
        orders.append("self_cuda_time_total")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for batch in scale.batches[:2]:
            table = _profiled(detector, [image] * batch, activities)
            for order in orders:
                file.write(f"{precision}, batch {batch}, {RUNS} runs, by {order}\n")
                file.write(table.table(sort_by=order, row_limit=ROWS, max_name_column_width=70))
                file.write("\n\n")


def _profiled(detector: Any, images: list[Any], activities: list[ProfilerActivity]) -> Any:
    for _ in range(3):
        detector.detect(images)
    synchronize()
    with profile(activities=activities) as recorded:
        for _ in range(RUNS):
            detector.detect(images)
        synchronize()
    return recorded.key_averages()
