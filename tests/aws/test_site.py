import json
from collections.abc import Mapping
from typing import Any

import boto3
import pytest

from d2serve.aws.context import find_site, imagined_site
from d2serve.errors import CommandError
from tests.aws.conftest import TRUST
from tests.aws.test_failures import nobody
from tests.aws.world import ACCOUNT_ID, BUCKET, REGION, ROLE, World


def session_as(world: World, role: str) -> boto3.Session:
    """A session in which `role` is assumed."""
    iam = world.client("iam")
    arn = iam.create_role(
        RoleName=role, AssumeRolePolicyDocument=json.dumps(TRUST), Path="/service-role/"
    )["Role"]["Arn"]
    assumed: Mapping[str, Any] = world.client("sts").assume_role(RoleArn=arn, RoleSessionName="me")
    keys = assumed["Credentials"]
    return boto3.Session(
        keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], region_name=REGION
    )


@pytest.mark.parametrize("role", ["Serving", ROLE])
def test_a_role_is_found_by_name_or_arn(role: str, world: World) -> None:
    site = find_site(world.account()[0], role, None)
    assert (site.role_arn, site.account_id, site.bucket) == (ROLE, ACCOUNT_ID, BUCKET)
    assert find_site(world.account()[0], role, "ours").bucket == "ours"


def test_sagemakers_own_role_is_taken(world: World) -> None:
    account, _ = world.account(session_as(world, "AmazonSageMaker-ExecutionRole-1"))
    arn = f"arn:aws:iam::{ACCOUNT_ID}:role/service-role/AmazonSageMaker-ExecutionRole-1"
    assert find_site(account, None, None).role_arn == arn


def test_another_role_is_not_taken(world: World) -> None:
    account, _ = world.account(session_as(world, "Developer"))
    with pytest.raises(CommandError, match=r"no SageMaker execution role; give .* ROLE="):
        find_site(account, None, None)


def test_a_user_needs_a_role(world: World) -> None:
    with pytest.raises(CommandError, match="ROLE=name-or-ARN"):
        find_site(world.account()[0], None, None)


def test_a_role_that_does_not_exist(world: World) -> None:
    with pytest.raises(CommandError, match=r"ROLE 'Nobody': iam\.get_role: NoSuchEntity"):
        find_site(world.account()[0], "Nobody", None)


@pytest.mark.parametrize(
    ("region", "role", "arn"),
    [
        ("eu-west-1", None, f"arn:aws:iam::{ACCOUNT_ID}:role/SageMakerExecutionRole"),
        ("cn-north-1", "Serving", f"arn:aws-cn:iam::{ACCOUNT_ID}:role/Serving"),
        ("us-gov-west-1", "arn:aws-us-gov:iam::1:role/x", "arn:aws-us-gov:iam::1:role/x"),
    ],
)
def test_a_site_is_imagined_without_asking(region: str, role: str | None, arn: str) -> None:
    site = imagined_site(nobody(region), role, None)
    assert (site.role_arn, site.bucket) == (arn, f"sagemaker-{region}-{ACCOUNT_ID}")
