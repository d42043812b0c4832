"""`make predict`: send one image or a folder to a server or a SageMaker endpoint."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import boto3

from d2serve.cli.run import run
from d2serve.client.client import Client
from d2serve.client.folder import outcome_table, result_console, send_pictures
from d2serve.client.http import DEFAULT_URL, HttpTransport
from d2serve.client.sagemaker import endpoint_transport
from d2serve.client.transport import Transport, find_pictures
from d2serve.servers.torchserve.launcher.network import TOKEN_VARIABLE


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what was found in each picture; 1 if any was refused."""
    options = _parser().parse_args(arguments)
    pictures = find_pictures(options.image)
    with Client(_transport(options)) as client:
        outcomes = send_pictures(client, pictures, options.image, options.overlay)
    if options.json:
        print(json.dumps([outcome.as_json() for outcome in outcomes]))
    else:
        result_console().print(outcome_table(outcomes))
    return int(any(outcome.failed for outcome in outcomes))


def _transport(options: argparse.Namespace) -> Transport:
    if not options.endpoint:
        # Not an option: a command line can be read by everyone on the machine.
        token = os.environ.get(TOKEN_VARIABLE)
        return HttpTransport(options.url, token=token, ca=options.ca)
    session = boto3.Session(region_name=options.region)
    return endpoint_transport(options.endpoint, session, target_model=options.target_model)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="predict", description=__doc__, epilog=f"A server's token comes from {TOKEN_VARIABLE}."
    )
    parser.add_argument("image", type=Path, help="a picture, or a folder that is searched through")
    parser.add_argument("--url", default=DEFAULT_URL, help="default: %(default)s")
    parser.add_argument("--ca", type=Path, help="PEM file of the certificates to trust at the URL")
    parser.add_argument("--endpoint", help="a SageMaker endpoint's name, in place of the URL")
    parser.add_argument("--region", help="of the endpoint; default: that of the AWS configuration")
    parser.add_argument("--target-model", help="NAME.tar.gz of a multi-model endpoint")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--overlay", type=Path, metavar="DIR", help="write drawn pictures there")
    return parser


if __name__ == "__main__":
    run(main)
