"""Draw docs/images/performance.png from docs/performance-data.json."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DOCS = Path(__file__).resolve().parent.parent / "docs"
DATA = DOCS / "performance-data.json"
FIGURE = DOCS / "images" / "performance.png"
PRECISIONS = ("fp32", "bf16", "fp16")
# The colours of Okabe and Ito, which most colour-blind readers can distinguish.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 9,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "legend.frameon": False,
}
OURS, GRAPH = "d2serve", "d2serve, CUDA graphs"

Row = dict[str, Any]


def main() -> None:
    """Draw the figure."""
    data = json.loads(DATA.read_text(encoding="utf-8"))
    rows: dict[str, list[Row]] = {result["id"]: result["rows"] for result in data["results"]}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 9), layout="constrained")
        parts, speedups, gpu = figure.subplots(3, 1, height_ratios=(4, 15, 10))
        _draw_parts(parts, rows["cpu-forward"])
        _draw_speedups(speedups, [*rows["cpu-forward"], *rows["cpu-requests"], *rows["cpu-masks"]])
        _draw_gpu(gpu, rows["gpu"])
        figure.savefig(FIGURE, dpi=110)


def _draw_parts(axes: Axes, rows: list[Row]) -> None:
    axes.set_title("Forward pass of R50-FPN on 4 CPU cores, ms per image")
    bars = [row for row in rows if row["case"].startswith("R50-FPN") and "part" not in row]
    # Detectron2 computes in fp32 beside both precisions of d2serve.
    bars = [bars[1], bars[0], bars[2]]
    for place, bar in enumerate(bars):
        key = (bar["case"], bar["implementation"])
        chosen = [row for row in rows if (row["case"], row["implementation"]) == key]
        left = 0.0
        for row, colour in zip([row for row in chosen if "part" in row], COLOURS, strict=True):
            label = row["part"] if place == 0 else None
            axes.barh(place, row["median_ms"], left=left, color=colour, label=label)
            left += row["median_ms"]
        axes.text(left, place, f" {bar['median_ms']:,}", va="center")
    axes.set_yticks(range(3), ["detectron2, fp32", "d2serve, fp32", "d2serve, bf16"])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1.1))


def _draw_speedups(axes: Axes, rows: list[Row]) -> None:
    axes.set_title("Speedup over Detectron2 on 4 CPU cores (median and quartiles)")
    rows = [row for row in rows if row["implementation"].startswith("detectron2")]
    rows = [row for row in rows if "part" not in row]
    for place, row in enumerate(rows):
        low, high = row["ratio_quartiles"]
        spread = [[row["ratio"] - low], [high - row["ratio"]]]
        axes.errorbar(row["ratio"], place, xerr=spread, fmt="o", capsize=3, color=COLOURS[0])
        axes.text(high * 1.06, place, f"{row['ratio']:.3g}x", va="center")
    axes.set_yticks(range(len(rows)), [f"{row['stage']}, {row['case']}" for row in rows])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xscale("log")
    ticks = [1, 2, 5, 10, 20, 50, 100, 200]
    axes.set_xticks(ticks, [f"{tick}x" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlim(0.9, 300)


def _draw_gpu(axes: Axes, rows: list[Row]) -> None:
    axes.set_title("Forward pass of R50-FPN on an NVIDIA H200, images/s")
    for what, style in ((OURS, "o-"), (GRAPH, "o--")):
        for precision, colour in zip(PRECISIONS, COLOURS, strict=False):
            points = [r for r in rows if (r["what"], r["precision"]) == (what, precision)]
            batches = [point["batch"] for point in points]
            rates = [point["images_per_s"] for point in points]
            label = f"{precision}, CUDA graph" if what == GRAPH else precision
            axes.plot(batches, rates, style, color=colour, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 8, 32], ["1", "8", "32"])
    axes.minorticks_off()
    axes.set_xlabel("batch size")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1.05))


if __name__ == "__main__":
    main()
