"""Command-line options shared by the AWS commands."""

import argparse
from pathlib import Path

from d2serve.building.package import Package, package_path, read_package
from d2serve.building.packing import STORE
from d2serve.errors import CommandError


def add_package(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Which package."""
    package = parser.add_mutually_exclusive_group(required=required)
    package.add_argument("--name", help=f"the package {STORE}/NAME.tar.gz")
    package.add_argument("--package", type=Path, metavar="FILE", help="a package by its path")


def add_region(parser: argparse.ArgumentParser) -> None:
    """Where, and whether in earnest."""
    parser.add_argument("--region", help="default: that of the AWS configuration")
    parser.add_argument("--dry-run", action="store_true", help="show the calls, make none")


def add_site(parser: argparse.ArgumentParser) -> None:
    """Where, as what role and with which bucket."""
    add_region(parser)
    site = parser.add_argument_group("account")
    site.add_argument("--role", help="execution role, name or ARN; default: the one that runs this")
    site.add_argument("--bucket", help="default: sagemaker-REGION-ACCOUNT, made if missing")
    site.add_argument("--prefix", default="d2serve", help="of the S3 keys; default: %(default)s")
    site.add_argument("--kms-key", metavar="KEY", help="encrypts volumes and what is written to S3")


def add_network(parser: argparse.ArgumentParser) -> None:
    """What the container may reach, and its environment."""
    container = parser.add_argument_group("container")
    container.add_argument("--subnets", default="", metavar="ID,ID", help="of a VPC")
    container.add_argument("--security-groups", default="", metavar="ID,ID", help="of a VPC")
    container.add_argument("--network-isolation", action="store_true", help="no network at all")
    container.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="environment variable; repeatable",
    )


def package_of(given: argparse.Namespace, *, multi_model: bool = False) -> Package:
    """The package that was named, checked."""
    named = package_path(STORE, given.name or "", multi_model=multi_model)
    return read_package(given.package or named)


def listed(value: str) -> tuple[str, ...]:
    """The parts between commas or spaces."""
    return tuple(value.replace(",", " ").split())


def environment_of(given: argparse.Namespace) -> dict[str, str]:
    """The variables of all --env.

    Raises:
        CommandError: one is not KEY=VALUE.
    """
    pairs = [pair.partition("=") for pair in given.env]
    for key, equals, value in pairs:
        if not key or not equals:
            raise CommandError(f"--env {key}{equals}{value}: write it as KEY=VALUE")
    return {key: value for key, _, value in pairs}
