"""A job's list of images and files in S3, on moto's server."""

import subprocess
from collections.abc import Iterator

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.environment import clean_environment
from tests.serving.ray_server import RAY_PYTHON

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
SCRIPT = """
from pathlib import Path
from d2serve.servers.ray.batch.inputs import list_images
from d2serve.servers.ray.batch.job import Job, clean, open_job, read_list, unfinished
from d2serve.servers.ray.batch.storage import Storage

listing = list_images("s3://bucket/in", ("s3://bucket/in/out",))
assert listing.paths == ("s3://bucket/in/a.jpg", "s3://bucket/in/größe/b c.PNG"), listing
assert listing.skipped == 1
storage = Storage("s3://bucket/in/out/")
wanted = Job("sum", "s3://bucket/in", "rle", None, "", ("x",))
job = open_job(storage, wanted, listing.paths)
assert read_list(storage, 0, 0) == list(listing.paths)
assert unfinished(storage, job) == [(0, 0)]
storage.write("parts/part-00000-000000.parquet", b"")
job = open_job(storage, wanted, (*listing.paths, "s3://bucket/in/new.jpg"))
assert read_list(storage, 1, 0) == ["s3://bucket/in/new.jpg"]
assert unfinished(storage, job) == [(1, 0)]
storage.write("started/part.json", b"{}")
clean(storage)
assert storage.names("started") == set()
storage.upload("file.txt", Path("/proc/self/cmdline"))
assert storage.read("file.txt")
"""


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a server with images in a bucket."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    try:
        client.create_bucket(Bucket="bucket")
        for key in ("in/a.jpg", "in/größe/b c.PNG", "in/note.txt", "in/out/old.jpg", "inner.jpg"):
            client.put_object(Bucket="bucket", Key=key, Body=b"x")
        yield url
    finally:
        client.close()
        server.stop()


def test_a_job_in_s3(s3: str) -> None:
    done = subprocess.run(
        [str(RAY_PYTHON), "-c", SCRIPT],
        env={**clean_environment(), **KEYS, "AWS_ENDPOINT_URL": s3},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
