"""`make predict`: one picture, or a folder of them, through a server or a SageMaker endpoint."""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import boto3

from scripts.client import DEFAULT_URL, Client, HttpTransport, endpoint_transport
from scripts.client.messages import Transport
from scripts.errors import run
from scripts.outcomes import outcome_table
from scripts.pictures import find_pictures
from scripts.sending import result_console, send_pictures
from scripts.tokens import TOKEN_VARIABLE


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
