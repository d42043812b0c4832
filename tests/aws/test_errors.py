import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError, NoCredentialsError, NoRegionError, SSOTokenLoadError

from d2serve.aws.account import connect
from d2serve.aws.api import AwsError, readable_errors
from d2serve.errors import CommandError


def refusal(code: str, message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "CreateModel")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (refusal("Odd", "so it is"), "a.b: Odd: so it is"),
        (refusal("AccessDeniedException"), "a.b: AccessDeniedException: no (this identity needs"),
        (refusal("ExpiredToken"), "a.b: ExpiredToken: no (log in again, such as with `aws sso"),
        (refusal("ResourceLimitExceeded"), "a.b: ResourceLimitExceeded: no (ask for more in"),
        (NoCredentialsError(), "a.b: no AWS credentials (Unable to locate credentials)"),
        (SSOTokenLoadError(error_msg="old"), "a.b: no AWS credentials (Error loading SSO Token"),
        (NoRegionError(), "no AWS region is set; give one with REGION="),
        (S3UploadFailedError("half of it"), "a.b: half of it"),
    ],
)
def test_errors_name_the_call_and_the_fix(error: Exception, message: str) -> None:
    with pytest.raises(CommandError) as told, readable_errors("a.b"):
        raise error
    assert str(told.value).startswith(message)


@pytest.mark.parametrize(
    ("error", "is_missing"),
    [
        (refusal("ValidationException", 'Could not find endpoint "a"'), True),
        (refusal("ValidationException", "the name is too long"), False),
        (refusal("404"), True),
        (refusal("NoSuchEntity"), True),
        (refusal("403"), False),
        (refusal("AccessDenied", "Could not find out"), False),
    ],
)
def test_what_is_missing_is_told_from_what_is_refused(error: Exception, is_missing: bool) -> None:
    with pytest.raises(AwsError) as told, readable_errors("a.b"):
        raise error
    assert told.value.not_found is is_missing


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), readable_errors("a.b"):
        raise ZeroDivisionError


def test_the_usual_configuration_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connect("eu-west-1").region == "eu-west-1"
    assert not connect("eu-west-1").has_credentials()
    monkeypatch.setenv("AWS_DEFAULT_REGION", "cn-north-1")
    assert (connect(None).region, connect(None).partition) == ("cn-north-1", "aws-cn")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(CommandError, match=r"profile \(nobody\) could not be found"):
        connect(None)
