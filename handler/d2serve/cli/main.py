"""Entry point of the `d2serve` command.

Commands import the modules that they need when they run, so that `d2serve --help` starts without
torch.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from d2serve.cli import (
    archive,
    batch,
    bench,
    demo,
    deploy,
    label_studio,
    playground,
    predict,
    ray_config,
    sagemaker,
    sagemaker_local,
    serve,
)
from d2serve.cli.run import INTERRUPTED, run


class CommandGroup(TyperGroup):
    """Gives an interrupted command the same exit code in all versions of Typer."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=CommandGroup,
    add_completion=False,
    no_args_is_help=True,
    # Tracebacks of unexpected errors without the values of variables, such as tokens.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
GROUPS = (
    archive,
    serve,
    demo,
    batch,
    predict,
    playground,
    label_studio,
    deploy,
    sagemaker,
    sagemaker_local,
    ray_config,
    bench,
)
for group in GROUPS:
    app.add_typer(group.app)


def main() -> None:
    """Run the command line of this process and exit.

    Exit codes: 0 success, 1 failed, 2 wrong usage, 130 interrupted.
    """
    run(invoke)


def invoke(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: the command and its options; those of this process if None.

    Raises:
        D2ServeError: the command failed.
    """
    try:
        app(args=None if arguments is None else list(arguments), prog_name="d2serve")
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"d2serve {version('d2serve')}")
        raise typer.Exit


@app.callback()
def _d2serve(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_show_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Serve Detectron2 models in production."""


if __name__ == "__main__":
    main()
