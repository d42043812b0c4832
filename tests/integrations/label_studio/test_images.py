"""Images of tasks come from Label Studio and allowed places only."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from d2serve.errors import CommandError
from d2serve.integrations.label_studio.images import ImageSource
from tests.integrations.label_studio.fake_label_studio import (
    BUCKET_URI,
    LEGACY_TOKEN,
    PERSONAL_TOKEN,
    FakeLabelStudio,
    fake_label_studio,
)

IMAGE = b"the content of an image file"
MAX_BYTES = 100


@pytest.fixture
def label_studio() -> Iterator[FakeLabelStudio]:
    with fake_label_studio(IMAGE) as fake:
        yield fake


@pytest.fixture
def other() -> Iterator[FakeLabelStudio]:
    """A server on another port, which is another origin."""
    with fake_label_studio(IMAGE) as fake:
        yield fake


def read(reference: str, url: str | None, task_id: object = 7, **options: Any) -> bytes:
    with ImageSource(url, **{"token": LEGACY_TOKEN, "max_bytes": MAX_BYTES, **options}) as source:
        return source.read(reference, task_id)


@pytest.mark.parametrize(
    ("reference", "path"),
    [
        ("/data/upload/1/a.png", "/data/upload/1/a.png"),
        ("upload/1/a.png", "/data/upload/1/a.png"),
        ("/data/local-files/?d=a/b.png", "/data/local-files/?d=a/b.png"),
        ("{url}/data/upload/1/a.png", "/data/upload/1/a.png"),
        (BUCKET_URI, "/tasks/7/presign/?fileuri=czM6Ly9idWNrZXQvYS5wbmc="),
    ],
)
def test_files_of_label_studio_are_read_with_its_token(
    label_studio: FakeLabelStudio, reference: str, path: str
) -> None:
    assert read(reference.format(url=label_studio.url), label_studio.url) == IMAGE
    assert label_studio.requests[0] == (path, f"Token {LEGACY_TOKEN}")


def test_a_personal_token_is_exchanged_and_renewed(label_studio: FakeLabelStudio) -> None:
    with ImageSource(label_studio.url, token=PERSONAL_TOKEN) as source:
        assert source.read("/data/upload/1/a.png") == IMAGE
        label_studio.expired.add(label_studio.access_token())
        assert source.read("/data/upload/1/a.png") == IMAGE
    assert [header for _, header in label_studio.requests] == [
        "Bearer head.access0.signature",
        "Bearer head.access0.signature",
        "Bearer head.access1.signature",
    ]


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("wrong", "HTTP 401; check --token-file"),
        ("", "HTTP 401; check --token-file"),
        ("a.wrong.one", "does not accept the personal access token: HTTP 401"),
    ],
)
def test_a_wrong_token_is_explained(
    label_studio: FakeLabelStudio, token: str, message: str
) -> None:
    with pytest.raises(CommandError, match=message):
        read("/data/upload/1/a.png", label_studio.url, token=token)


def test_a_task_cannot_choose_the_host(
    label_studio: FakeLabelStudio, other: FakeLabelStudio
) -> None:
    with pytest.raises(CommandError, match=r"not allowed; allow it with --allow-host 127\.0\.0\.1"):
        read(f"{other.url}/public/a.png", label_studio.url)
    assert other.requests == []


def test_an_allowed_host_does_not_receive_the_token(
    label_studio: FakeLabelStudio, other: FakeLabelStudio
) -> None:
    allowed = [f"127.0.0.1:{other.port}"]
    url = f"{other.url}/public/a.png"
    assert read(url, label_studio.url, allowed_hosts=allowed) == IMAGE
    assert other.requests == [("/public/a.png", "")]


def test_a_redirect_cannot_leave_the_allowed_hosts(
    label_studio: FakeLabelStudio, other: FakeLabelStudio
) -> None:
    label_studio.elsewhere = f"{other.url}/public/a.png"
    with pytest.raises(CommandError, match="not allowed"):
        read("/data/redirect/1", label_studio.url)
    assert other.requests == []


def test_a_redirect_to_an_allowed_host_loses_the_token(
    label_studio: FakeLabelStudio, other: FakeLabelStudio
) -> None:
    label_studio.elsewhere = f"{other.url}/public/a.png?signature=1"
    allowed = [f"127.0.0.1:{other.port}"]
    assert read("/data/redirect/1", label_studio.url, allowed_hosts=allowed) == IMAGE
    assert other.requests == [("/public/a.png?signature=1", "")]


def test_a_redirect_loop_ends(label_studio: FakeLabelStudio) -> None:
    label_studio.elsewhere = "/data/redirect/1"
    with pytest.raises(CommandError, match="more than 5 redirects"):
        read("/data/redirect/1", label_studio.url)


@pytest.mark.parametrize(
    "reference",
    [
        "/api/current-user/token",
        "/data/../api/current-user/token",
        "/data/upload/%2e%2e/%2e%2e/api/users/",
        "//127.0.0.1:1/data/upload/a.png",
        "/user/login/?next=/data/",
    ],
)
def test_a_task_cannot_request_other_routes_with_the_token(
    label_studio: FakeLabelStudio, reference: str
) -> None:
    with pytest.raises(CommandError, match="is not a file of Label Studio"):
        read(reference, label_studio.url)
    assert label_studio.requests == []


@pytest.mark.parametrize(
    "reference",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/a.png",
        "http://[::1",
        "http://127.0.0.1@evil.invalid/a.png",
        "/etc/passwd",
        "",
        "a\x00b",
        "data:image/png;base64,###",
        "data:nothing",
        "s3://bucket/missing.png",
    ],
)
def test_other_references_are_refused(label_studio: FakeLabelStudio, reference: str) -> None:
    with pytest.raises(CommandError):
        read(reference, label_studio.url)


def test_a_data_uri_is_decoded() -> None:
    encoded = base64.b64encode(IMAGE).decode()
    assert read(f"data:image/png;base64,{encoded}", None) == IMAGE


def test_a_file_of_label_studio_needs_its_url() -> None:
    with pytest.raises(CommandError, match="give --label-studio-url and --token-file"):
        read("/data/upload/1/a.png", None)


def test_a_bucket_needs_the_number_of_the_task(label_studio: FakeLabelStudio) -> None:
    with pytest.raises(CommandError, match=r"the task's id is '7/\.\./8'"):
        read(BUCKET_URI, label_studio.url, task_id="7/../8")


@pytest.mark.parametrize("place", ["download", "data", "file"])
def test_an_image_that_is_too_large_is_refused(
    label_studio: FakeLabelStudio, tmp_path: Path, place: str
) -> None:
    large = bytes(MAX_BYTES + 1)
    label_studio.image = large
    (tmp_path / "a.png").write_bytes(large)
    reference = {
        "download": "/data/upload/1/a.png",
        "data": f"data:image/png;base64,{base64.b64encode(large).decode()}",
        "file": "/data/local-files/?d=a.png",
    }[place]
    with pytest.raises(CommandError, match="more than 100 bytes"):
        read(reference, label_studio.url, document_root=tmp_path)


@pytest.fixture
def document_root(tmp_path: Path) -> Path:
    """A folder with an image, beside a secret, with a link to it."""
    root = tmp_path / "root"
    (root / "ab c").mkdir(parents=True)
    (root / "ab c" / "é.png").write_bytes(IMAGE)
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    (root / "link").symlink_to(tmp_path / "secret")
    return root


def test_local_files_are_read_from_the_folder(document_root: Path) -> None:
    reference = "/data/local-files/?d=ab%20c/%C3%A9.png"
    assert read(reference, None, document_root=document_root) == IMAGE


@pytest.mark.parametrize(
    "name", ["../secret", "..%2Fsecret", "%2Fetc/passwd", "link", "ab%20c", "", "a%00b", "missing"]
)
def test_local_files_stay_below_the_folder(document_root: Path, name: str) -> None:
    with pytest.raises(CommandError, match="--document-root"):
        read(f"/data/local-files/?d={name}", None, document_root=document_root)


def test_the_address_of_label_studio_is_checked() -> None:
    with pytest.raises(CommandError, match=r"expected http\(s\)://HOST"):
        ImageSource("labels.example.com")
