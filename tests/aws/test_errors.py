import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError, NoCredentialsError, NoRegionError, SSOTokenLoadError

from d2serve.aws.account import connect
from d2serve.aws.api import readable_errors
from d2serve.errors import AwsError, CommandError


def aws_error(code: str, message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "CreateModel")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (aws_error("Odd", "details"), "a.b: Odd: details"),
        (aws_error("AccessDeniedException"), "a.b: AccessDeniedException: no (this identity needs"),
        (aws_error("ExpiredToken"), "a.b: ExpiredToken: no (log in again, for example with"),
        (
            aws_error("ResourceLimitExceeded"),
            "a.b: ResourceLimitExceeded: no (request a higher",
        ),
        (NoCredentialsError(), "a.b: no AWS credentials (Unable to locate credentials)"),
        (SSOTokenLoadError(error_msg="old"), "a.b: no AWS credentials (Error loading SSO Token"),
        (NoRegionError(), "no AWS region is set; set one with --region"),
        (S3UploadFailedError("half of it"), "a.b: half of it"),
    ],
)
def test_errors_name_the_call_and_the_fix(error: Exception, message: str) -> None:
    with pytest.raises(CommandError) as raised, readable_errors("a.b"):
        raise error
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("error", "is_missing"),
    [
        (aws_error("ValidationException", 'Could not find endpoint "a"'), True),
        (aws_error("ValidationException", "the name is too long"), False),
        (aws_error("404"), True),
        (aws_error("NoSuchEntity"), True),
        (aws_error("403"), False),
        (aws_error("AccessDenied", "Could not find out"), False),
    ],
)
def test_missing_resources_are_recognized(error: Exception, is_missing: bool) -> None:
    with pytest.raises(AwsError) as raised, readable_errors("a.b"):
        raise error
    assert raised.value.not_found is is_missing


def test_other_errors_are_not_converted() -> None:
    with pytest.raises(ZeroDivisionError), readable_errors("a.b"):
        raise ZeroDivisionError


def test_standard_configuration_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connect("eu-west-1").region == "eu-west-1"
    assert not connect("eu-west-1").has_credentials()
    monkeypatch.setenv("AWS_DEFAULT_REGION", "cn-north-1")
    assert (connect(None).region, connect(None).partition) == ("cn-north-1", "aws-cn")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(CommandError, match=r"profile \(nobody\) could not be found"):
        connect(None)
