"""Account context of a run: region, role and bucket."""

from dataclasses import dataclass

from d2serve.aws.account import Account, Identity
from d2serve.aws.api import AwsError
from d2serve.errors import CommandError

# What a dry run without credentials shows.
NOBODY = Identity("123456789012", "")
NEEDS_ROLE = (
    "give the SageMaker execution role with ROLE=name-or-ARN: a role that sagemaker.amazonaws.com "
    "may assume and that may read the bucket, pull from ECR and write logs and metrics "
    "(AWS's AmazonSageMakerFullAccess is more than enough)"
)


@dataclass(frozen=True)
class Site:
    """Where a run works, and as what."""

    region: str
    account_id: str
    role_arn: str
    bucket: str

    def is_default_bucket(self) -> bool:
        """Whether it is the bucket that SageMaker's tools share, made where it is missing."""
        return self.bucket == default_bucket(self.region, self.account_id)


def default_bucket(region: str, account_id: str) -> str:
    """The name of SageMaker's default bucket."""
    return f"sagemaker-{region}-{account_id}"


def find_site(account: Account, role: str | None, bucket: str | None) -> Site:
    """Asks AWS for what was not given.

    Raises:
        CommandError: no region, no credentials, or no role.
    """
    identity = account.identity()
    role_arn = _find_role(account, role, identity)
    chosen = bucket or default_bucket(account.region, identity.account_id)
    return Site(account.region, identity.account_id, role_arn, chosen)


def imagined_site(account: Account, role: str | None, bucket: str | None) -> Site:
    """What `find_site` could find in the account 123456789012, asking nobody."""
    name = role or "SageMakerExecutionRole"
    in_account = f"arn:{account.partition}:iam::{NOBODY.account_id}:role/{name}"
    role_arn = name if _is_arn(name) else in_account
    chosen = bucket or default_bucket(account.region, NOBODY.account_id)
    return Site(account.region, NOBODY.account_id, role_arn, chosen)


def _find_role(account: Account, role: str | None, identity: Identity) -> str:
    if role and _is_arn(role):
        return role
    name = role or _assumed_role(identity.arn)
    if not name or not (role or "sagemaker" in name.lower()):
        raise CommandError(f"{identity.arn} is no SageMaker execution role; {NEEDS_ROLE}")
    try:
        return str(account.ask("iam", "get_role", RoleName=name)["Role"]["Arn"])
    except AwsError as error:
        raise CommandError(f"ROLE {name!r}: {error}; {NEEDS_ROLE}") from error


def _is_arn(role: str) -> bool:
    return role.startswith("arn:")


def _assumed_role(arn: str) -> str | None:
    """The role's name of arn:aws:sts::123456789012:assumed-role/NAME/SESSION."""
    kind, _, rest = arn.rpartition(":")[2].partition("/")
    return rest.partition("/")[0] if kind == "assumed-role" else None
