"""Options and checks that several commands share."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from d2serve.errors import CommandError

if TYPE_CHECKING:
    from d2serve.building.package import Package
    from d2serve.servers.exposure import Certificate

MODEL_STORE = Path("model-store")
ACCOUNT = "AWS account"
CONTAINER = "Container"
DEFAULT_INSTANCE = "ml.m5.xlarge"
CAPACITY = "Capacity"


class StockContainer(str, Enum):
    """Choices of --container: AWS's stock containers."""

    RAY = "ray"
    PYTORCH = "pytorch"


class Masks(str, Enum):
    """Choices of --masks: the encoding of masks."""

    RLE = "rle"
    POLYGON = "polygon"
    NONE = "none"


ModelStore = Annotated[Path, typer.Option(metavar="DIR", help="Folder of archives and packages.")]
PackageName = Annotated[
    str | None, typer.Option("--name", help=f"Package {MODEL_STORE}/NAME.tar.gz.")
]
PackageFile = Annotated[
    Path | None, typer.Option("--package", metavar="FILE", help="Package by its path.")
]
PackageContainer = Annotated[
    StockContainer | None,
    typer.Option(
        "--container",
        help="Container that the package was built for; checked.",
        show_default="the package's",
        rich_help_panel=CONTAINER,
    ),
]
Image = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        help="Container image, such as a copy in your own registry.",
        show_default="AWS's, of the region",
        rich_help_panel=CONTAINER,
    ),
]
Region = Annotated[
    str | None, typer.Option(help="AWS region.", show_default="the AWS configuration's")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the AWS calls without making them.")]
Role = Annotated[
    str | None,
    typer.Option(
        help="Execution role, by name or ARN.",
        show_default="the current role",
        rich_help_panel=ACCOUNT,
    ),
]
Bucket = Annotated[
    str | None,
    typer.Option(
        help="S3 bucket for the package.",
        show_default="sagemaker-REGION-ACCOUNT, created if missing",
        rich_help_panel=ACCOUNT,
    ),
]
Prefix = Annotated[str, typer.Option(help="Start of the S3 keys.", rich_help_panel=ACCOUNT)]
KmsKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY", help="Encrypts volumes and objects in S3.", rich_help_panel=ACCOUNT
    ),
]
Subnets = Annotated[
    str, typer.Option(metavar="ID,ID", help="Subnets of a VPC.", rich_help_panel=CONTAINER)
]
SecurityGroups = Annotated[
    str, typer.Option(metavar="ID,ID", help="Security groups of a VPC.", rich_help_panel=CONTAINER)
]
NetworkIsolation = Annotated[
    bool,
    typer.Option(
        "--network-isolation", help="Give the container no network.", rich_help_panel=CONTAINER
    ),
]
Environment = Annotated[
    list[str] | None,
    typer.Option(
        "--env",
        metavar="KEY=VALUE",
        help="Environment variable; repeatable.",
        rich_help_panel=CONTAINER,
    ),
]


def examples(*commands: str) -> str:
    """Format commands as the epilog of a help page."""
    return "\n\n".join(["Examples:", *(command.replace("[", r"\[") for command in commands)])


def find_package(
    name: str | None,
    file: Path | None,
    *,
    multi_model: bool = False,
    container: StockContainer | None = None,
) -> "Package":
    """Read and check the package of --name or --package.

    Raises:
        typer.BadParameter: both or neither are given.
        CommandError: the package does not exist, is damaged, or is for another container.
    """
    from d2serve.building.package import package_path, read_package

    if bool(name) == (file is not None):
        raise typer.BadParameter("give either --name or --package")
    package = read_package(file or package_path(MODEL_STORE, name or "", multi_model=multi_model))
    check_container(package, container)
    return package


def check_container(package: "Package", container: StockContainer | None) -> None:
    """Raise CommandError if a package was not built for the container of --container."""
    if container and package.container.value != container.value:
        raise CommandError(
            f"--container is {container.value!r}, but {package.path} is for "
            f"{package.container.value!r}; build the other one: d2serve package "
            f"--name {package.name} --container {container.value}"
        )


def split_list(value: str) -> tuple[str, ...]:
    """Split at commas and spaces."""
    return tuple(value.replace(",", " ").split())


def parse_environment(pairs: Sequence[str] | None) -> dict[str, str]:
    """Parse the values of --env.

    Raises:
        CommandError: a value is not KEY=VALUE.
    """
    parts = [pair.partition("=") for pair in pairs or ()]
    for key, equals, value in parts:
        if not key or not equals:
            raise CommandError(f"--env {key}{equals}{value} is not valid: use KEY=VALUE")
    return {key: value for key, _, value in parts}


def startup_message(
    model_name: str, url: str, certificate: "Certificate | None", needs_token: bool
) -> str:
    """The line that shows users their first request."""
    token = '-H "Authorization: Bearer TOKEN" ' if needs_token else ""
    trust = f"--cacert {certificate.chain} " if certificate else ""
    return (
        f"{model_name} is served at {url}/invocations; try: curl {trust}{token}"
        f"-H 'Content-Type: image/jpeg' --data-binary @image.jpg {url}/invocations"
    )


@contextmanager
def requires_extra(extra: str) -> Iterator[None]:
    """Convert a missing package of an extra to an error that names the installation command."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "d2serve":
            raise
        raise _missing(error.name, extra) from error


def require_packages(packages: Sequence[str], extra: str) -> None:
    """Check that packages are installed without importing them.

    Raises:
        CommandError: one is missing; the message names the installation command.
    """
    for package in packages:
        if find_spec(package) is None:
            raise _missing(package, extra)


def _missing(package: str, extra: str) -> CommandError:
    return CommandError(
        f"module {package!r} is not installed; install it with: pip install 'd2serve[{extra}]'"
    )
