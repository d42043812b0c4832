import json
from collections.abc import Mapping
from typing import Any

import boto3
import pytest

from d2serve.aws.context import example_context, find_context
from d2serve.errors import CommandError
from tests.aws.conftest import TRUST
from tests.aws.fake_aws import ACCOUNT_ID, BUCKET, REGION, ROLE, FakeAws
from tests.aws.test_failures import offline_account


def session_as(fake_aws: FakeAws, role: str) -> boto3.Session:
    """Return a session that has assumed `role`."""
    iam = fake_aws.client("iam")
    arn = iam.create_role(
        RoleName=role, AssumeRolePolicyDocument=json.dumps(TRUST), Path="/service-role/"
    )["Role"]["Arn"]
    assumed: Mapping[str, Any] = fake_aws.client("sts").assume_role(
        RoleArn=arn, RoleSessionName="me"
    )
    keys = assumed["Credentials"]
    return boto3.Session(
        keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], region_name=REGION
    )


@pytest.mark.parametrize("role", ["Serving", ROLE])
def test_role_by_name_or_arn(role: str, fake_aws: FakeAws) -> None:
    context = find_context(fake_aws.account()[0], role, None)
    assert (context.role_arn, context.account_id, context.bucket) == (ROLE, ACCOUNT_ID, BUCKET)
    assert find_context(fake_aws.account()[0], role, "ours").bucket == "ours"


def test_current_sagemaker_role_is_used(fake_aws: FakeAws) -> None:
    account, _ = fake_aws.account(session_as(fake_aws, "AmazonSageMaker-ExecutionRole-1"))
    arn = f"arn:aws:iam::{ACCOUNT_ID}:role/service-role/AmazonSageMaker-ExecutionRole-1"
    assert find_context(account, None, None).role_arn == arn


def test_other_current_role_is_rejected(fake_aws: FakeAws) -> None:
    account, _ = fake_aws.account(session_as(fake_aws, "Developer"))
    with pytest.raises(CommandError, match=r"not a SageMaker execution role; give .* --role"):
        find_context(account, None, None)


def test_user_needs_a_role(fake_aws: FakeAws) -> None:
    with pytest.raises(CommandError, match="--role NAME-OR-ARN"):
        find_context(fake_aws.account()[0], None, None)


def test_missing_role(fake_aws: FakeAws) -> None:
    with pytest.raises(CommandError, match=r"--role 'Missing': iam\.get_role: NoSuchEntity"):
        find_context(fake_aws.account()[0], "Missing", None)


@pytest.mark.parametrize(
    ("region", "role", "arn"),
    [
        ("eu-west-1", None, f"arn:aws:iam::{ACCOUNT_ID}:role/SageMakerExecutionRole"),
        ("cn-north-1", "Serving", f"arn:aws-cn:iam::{ACCOUNT_ID}:role/Serving"),
        ("us-gov-west-1", "arn:aws-us-gov:iam::1:role/x", "arn:aws-us-gov:iam::1:role/x"),
    ],
)
def test_example_context_needs_no_credentials(region: str, role: str | None, arn: str) -> None:
    context = example_context(offline_account(region), role, None)
    assert (context.role_arn, context.bucket) == (arn, f"sagemaker-{region}-{ACCOUNT_ID}")
