"""Account, region, role and bucket of a command."""

from dataclasses import dataclass

from d2serve.aws.account import Account, Identity
from d2serve.errors import AwsError, CommandError

# The account of a dry run without credentials.
EXAMPLE_IDENTITY = Identity("123456789012", "")
NEEDS_ROLE = (
    "give the SageMaker execution role with --role NAME-OR-ARN: a role that "
    "sagemaker.amazonaws.com may assume, with access to the bucket, to images in ECR, and to "
    "CloudWatch's logs and metrics (AmazonSageMakerFullAccess covers it)"
)


@dataclass(frozen=True)
class AccountContext:
    """Account, region, execution role and bucket to use."""

    region: str
    account_id: str
    role_arn: str
    bucket: str

    def is_default_bucket(self) -> bool:
        """Return whether it is SageMaker's default bucket, which is created if missing."""
        return self.bucket == default_bucket(self.region, self.account_id)


def default_bucket(region: str, account_id: str) -> str:
    """Return the name of SageMaker's default bucket."""
    return f"sagemaker-{region}-{account_id}"


def find_context(account: Account, role: str | None, bucket: str | None) -> AccountContext:
    """Complete the given role and bucket from the account.

    Raises:
        CommandError: region, credentials or role are missing.
    """
    identity = account.identity()
    role_arn = _find_role(account, role, identity)
    return _context(account, identity, role_arn, bucket)


def example_context(account: Account, role: str | None, bucket: str | None) -> AccountContext:
    """Announce and return the context of a dry run without credentials, in account 123456789012."""
    account.console.print(
        f"No credentials: showing the calls for an empty account, {EXAMPLE_IDENTITY.account_id}"
    )
    name = role or "SageMakerExecutionRole"
    in_account = f"arn:{account.partition}:iam::{EXAMPLE_IDENTITY.account_id}:role/{name}"
    return _context(account, EXAMPLE_IDENTITY, name if _is_arn(name) else in_account, bucket)


def _context(
    account: Account, identity: Identity, role_arn: str, bucket: str | None
) -> AccountContext:
    chosen = bucket or default_bucket(account.region, identity.account_id)
    return AccountContext(account.region, identity.account_id, role_arn, chosen)


def _find_role(account: Account, role: str | None, identity: Identity) -> str:
    if role and _is_arn(role):
        return role
    name = role or _assumed_role(identity.arn)
    if not name or not (role or "sagemaker" in name.lower()):
        raise CommandError(f"{identity.arn} is not a SageMaker execution role; {NEEDS_ROLE}")
    try:
        return str(account.read("iam", "get_role", RoleName=name)["Role"]["Arn"])
    except AwsError as error:
        raise CommandError(f"--role {name!r}: {error}; {NEEDS_ROLE}") from error


def _is_arn(role: str) -> bool:
    return role.startswith("arn:")


def _assumed_role(arn: str) -> str | None:
    """Return NAME of arn:aws:sts::123456789012:assumed-role/NAME/SESSION; None for other ARNs."""
    kind, _, rest = arn.rpartition(":")[2].partition("/")
    return rest.partition("/")[0] if kind == "assumed-role" else None
