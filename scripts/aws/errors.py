"""What AWS refuses, told with the thing and the fix."""

from collections.abc import Iterator
from contextlib import contextmanager

from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)

from scripts.errors import CommandError

NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    SSOError,
)
NO_REGION = "no AWS region is set; give one with REGION=, such as REGION=eu-central-1"
NOT_FOUND_CODES = ("404", "NoSuchBucket", "NoSuchEntity", "NoSuchKey", "ResourceNotFoundException")
HINTS = {
    "AccessDenied": "this identity needs a policy that allows the call",
    "AccessDeniedException": "this identity needs a policy that allows the call",
    "403": "this identity may not use it, or it belongs to another account",
    "ExpiredToken": "log in again, such as with `aws sso login`",
    "ExpiredTokenException": "log in again, such as with `aws sso login`",
    "ResourceLimitExceeded": "ask for more in AWS's Service Quotas, or take another INSTANCE",
}


class AwsError(CommandError):
    """A call that AWS did not carry out; `code` is AWS's own, or empty if none came."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code

    @property
    def not_found(self) -> bool:
        """Whether it is that the thing asked for does not exist."""
        missing = self.code == "ValidationException" and "Could not find" in str(self)
        return missing or self.code in NOT_FOUND_CODES


@contextmanager
def readable_errors(call: str) -> Iterator[None]:
    """Turn boto3's errors into AwsErrors that name `call`."""
    try:
        yield
    except NO_CREDENTIALS as error:
        raise AwsError(
            f"{call}: no AWS credentials ({error}); `aws configure` sets them, or AWS_PROFILE"
        ) from error
    except NoRegionError as error:
        raise AwsError(NO_REGION) from error
    except ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        hint = f" ({HINTS[code]})" if code in HINTS else ""
        raise AwsError(f"{call}: {code}: {message}{hint}", code) from error
    except (BotoCoreError, S3UploadFailedError) as error:
        raise AwsError(f"{call}: {error}") from error
