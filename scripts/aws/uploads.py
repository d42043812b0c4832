"""A package's way into S3."""

from scripts.aws.account import Account
from scripts.aws.calls import Call
from scripts.aws.errors import AwsError
from scripts.aws.resources import create_bucket, put_package
from scripts.aws.site import Site
from scripts.aws.steps import Step
from scripts.errors import CommandError
from scripts.package import Package


def upload_steps(account: Account, package: Package, site: Site, key: str) -> list[Step]:
    """The steps that bring the package to s3://bucket/key; none where it is there already.

    Raises:
        CommandError: the bucket is missing or someone else's, or holds another package there.
    """
    if not _bucket_exists(account, site):
        return first_upload(package, site, key, in_new_bucket=True)
    found = account.find("s3", "head_object", Bucket=site.bucket, Key=key)
    if found is None:
        return first_upload(package, site, key, in_new_bucket=False)
    if found["Metadata"].get("sha256") != package.sha256:
        raise CommandError(
            f"s3://{site.bucket}/{key} holds another package, and containers that have loaded it "
            f"would go on serving it; give the new one another NAME"
        )
    return []


def first_upload(package: Package, site: Site, key: str, *, in_new_bucket: bool) -> list[Step]:
    """The steps where neither the package is there nor, perhaps, the bucket."""
    drop_bucket = Call("s3", "delete_bucket", {"Bucket": site.bucket})
    drop_object = Call("s3", "delete_object", {"Bucket": site.bucket, "Key": key})
    put = Step(put_package(package, site.bucket, key), drop_object)
    return [Step(create_bucket(site), drop_bucket), put] if in_new_bucket else [put]


def _bucket_exists(account: Account, site: Site) -> bool:
    # The default bucket's name is easy to guess: nobody else's must be used.
    owner = {"ExpectedBucketOwner": site.account_id} if site.is_default_bucket() else {}
    try:
        found = account.find("s3", "head_bucket", Bucket=site.bucket, **owner)
    except AwsError as error:
        raise CommandError(f"BUCKET {site.bucket}: {error}") from error
    if found is None and not site.is_default_bucket():
        raise CommandError(f"BUCKET {site.bucket}: there is no such bucket; make it first")
    return found is not None
