"""The commands `d2serve archive` and `d2serve package`."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from d2serve.cli.options import MODEL_STORE, ModelStore, StockContainer, examples

PANEL = "Models"

app = typer.Typer()


class Runtime(str, Enum):
    """Choices of --runtime."""

    AUTO = "auto"
    NATIVE = "native"
    DETECTRON2 = "detectron2"


class Precision(str, Enum):
    """Choices of --precision."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"
    AUTO = "auto"


@app.command(
    rich_help_panel=PANEL,
    epilog=examples(
        "d2serve archive --config config.yaml --weights model_final.pth --name my-model",
        "d2serve archive --config mask_rcnn.py --weights model.pkl --name coco "
        "--classes classes.json",
        "d2serve archive --config config.yaml --weights model_final.pth --name my-model "
        "--ignore-key 'INPUT.SLICE_*' --ignore-key WANDB",
        "d2serve archive --config config.yaml --weights model_final.pth --name my-model "
        "--precision int8 --calibration images/",
    ),
)
def archive(
    config: Annotated[Path, typer.Option(help="Detectron2 config: .yaml or .py.")],
    weights: Annotated[Path, typer.Option(help="Checkpoint: .pth, .pkl, ...")],
    name: Annotated[str, typer.Option(help="Name of the model, such as my-model.")],
    classes: Annotated[Path | None, typer.Option(help="JSON file of class names.")] = None,
    weights_key: Annotated[
        str | None,
        typer.Option(help="Key of the weights in a checkpoint with several, such as model."),
    ] = None,
    runtime: Annotated[
        Runtime, typer.Option(help="Network to run: this package's or Detectron2's.")
    ] = Runtime.AUTO,
    ignore_key: Annotated[
        list[str] | None,
        typer.Option(
            help="Key that Detectron2 does not define and the network does not depend on, or a "
            "pattern such as 'INPUT.SLICE_*'; repeatable."
        ),
    ] = None,
    precision: Annotated[
        Precision | None,
        typer.Option(help="Number type of the layers, the setting precision.", show_default="fp32"),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Folder of usual images that int8 is calibrated on, 20 to 64 of them."),
    ] = None,
    augment: Annotated[
        bool,
        typer.Option(
            "--augment",
            help="Run each image in the sizes of the config's TEST.AUG, flipped too, and merge the "
            "results.",
        ),
    ] = False,
    model_store: ModelStore = MODEL_STORE,
) -> None:
    """Build an archive (.mar) from a Detectron2 config and checkpoint.

    The archive is written to model-store/NAME.mar after a test run of the network.
    """
    from d2serve.building.archive import build_archive
    from d2serve.building.packing import check_name

    built = build_archive(
        config,
        weights,
        model_store / f"{check_name(name)}.mar",
        class_names=classes,
        weights_key=weights_key,
        runtime=runtime.value,
        ignore_keys=ignore_key or (),
        model_config={"handler": {"precision": precision.value}} if precision else None,
        calibration=calibration,
        augment=augment,
        report=typer.echo,
    )
    megabytes = built.stat().st_size / 1e6
    typer.echo(f"{built} ({megabytes:.1f} MB); serve it with: d2serve serve {built}")


@app.command(
    rich_help_panel=PANEL,
    epilog=examples(
        "d2serve package --name shapes",
        "d2serve package --name shapes --container pytorch",
        "d2serve package --name shapes --multi-model",
    ),
)
def package(
    name: Annotated[str, typer.Option(help="Name of the model, as in d2serve archive.")],
    container: Annotated[
        StockContainer | None,
        typer.Option(
            help="AWS's stock container that will serve it.",
            show_default="ray; with --multi-model: pytorch",
        ),
    ] = None,
    multi_model: Annotated[
        bool, typer.Option("--multi-model", help="Build for a multi-model endpoint.")
    ] = False,
    model_store: ModelStore = MODEL_STORE,
) -> None:
    """Build a SageMaker package (.tar.gz) from an archive.

    Converts model-store/NAME.mar to NAME.tar.gz for one of SageMaker's stock containers.
    """
    from d2serve.building.package import Container, build_package
    from d2serve.building.packing import check_name

    default = StockContainer.PYTORCH if multi_model else StockContainer.RAY
    built = build_package(
        model_store / f"{check_name(name)}.mar",
        container=Container((container or default).value),
        multi_model=multi_model,
    )
    option = " --multi-model" if multi_model else ""
    typer.echo(
        f"{built.path} for the container {built.container.value!r} ({built.size_bytes / 1e6:.1f} "
        f"MB, sha256 {built.sha256[:12]}); "
        f"try it with: d2serve sagemaker-local --name {name}{option}"
    )
