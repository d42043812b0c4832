"""Read the images that tasks refer to: from Label Studio, allowed hosts, a folder or the task."""

import base64
import binascii
import re
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, unquote, unquote_to_bytes, urlsplit

import httpx

from d2serve.errors import CommandError
from d2serve.integrations.label_studio.authorization import Authorization

MAX_IMAGE_BYTES = 256 << 20
TIMEOUT_S = 60
MAX_REDIRECTS = 5
MAX_QUOTED_CHARACTERS = 100
# URIs of buckets, for which Label Studio has the credentials.
STORAGE_SCHEMES = ("s3", "gs", "azure-blob")
LOCAL_FILES = "/data/local-files/"
# The paths of Label Studio that serve files; tasks cannot request others with the token.
FILE_PATHS = re.compile(r"/(data|storage-data)/|/tasks/\d+/(resolve|presign)/")


class ImageSource:
    """Reads images that tasks refer to.

    A task's text decides what is read, and people who may create tasks are not always trusted:
    requests go to Label Studio and to allowed hosts only, also after redirects, and only Label
    Studio receives the token.

    Args:
        label_studio_url: base URL of Label Studio; None if tasks have no files of Label Studio.
        token: an access token of Label Studio, legacy or personal.
        allowed_hosts: further hosts, `HOST` or `HOST:PORT`.
        document_root: folder of Label Studio's local files, to read them without Label Studio.
        max_bytes: maximum size of an image file.

    Raises:
        CommandError: the URL is not valid.
    """

    def __init__(
        self,
        label_studio_url: str | None = None,
        *,
        token: str = "",
        allowed_hosts: Collection[str] = (),
        document_root: Path | None = None,
        max_bytes: int = MAX_IMAGE_BYTES,
    ) -> None:
        self._base = None if label_studio_url is None else _checked_url(label_studio_url)
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)
        self._document_root = document_root and document_root.resolve()
        self._max_bytes = max_bytes
        self._client = httpx.Client(timeout=TIMEOUT_S, follow_redirects=False)
        self._authorization = Authorization(self._client, self._base, token)

    def __enter__(self) -> "ImageSource":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def read(self, reference: str, task_id: object = None) -> bytes:
        """Read an image file.

        Args:
            reference: the value in the task's data: a path of Label Studio such as
                `/data/upload/1/a.jpg`, `/data/local-files/?d=a.jpg`, an http(s) URL, the URI of an
                object in a bucket, or a `data:` URI.
            task_id: Label Studio's number of the task, which it requires for buckets.

        Raises:
            CommandError: the image cannot be read, or is not allowed to.
        """
        quoted = reference[:MAX_QUOTED_CHARACTERS]
        scheme = reference.partition(":")[0].lower() if ":" in reference else ""
        if scheme == "data":
            content = _data_uri(reference)
            self._check_size(len(content), quoted)
            return content
        if reference.startswith(LOCAL_FILES[:-1]) and self._document_root:
            return self._local_file(self._document_root, reference)
        if scheme in STORAGE_SCHEMES:
            encoded = base64.urlsafe_b64encode(reference.encode()).decode()
            reference = f"/tasks/{_task_number(task_id)}/presign/?fileuri={encoded}"
        elif reference.startswith("upload/"):
            reference = f"/data/{reference}"
        return self._download(self._url(reference), quoted)

    def _url(self, reference: str) -> httpx.URL:
        """The absolute URL of a path of Label Studio, or of an http(s) URL; not checked."""
        if not reference.startswith("/"):
            return _parsed(reference)
        if self._base is None:
            raise CommandError(
                f"the image {reference[:MAX_QUOTED_CHARACTERS]} is a file of Label Studio, whose "
                "URL is not known; give --label-studio-url and --token-file"
            )
        return _parsed(str(self._base).rstrip("/") + reference)

    def _local_file(self, root: Path, reference: str) -> bytes:
        [name] = parse_qs(urlsplit(reference).query).get("d", [""])[:1]
        try:
            file = (root / name.lstrip("/")).resolve()
            if not file.is_relative_to(root) or not file.is_file():
                raise CommandError(f"{name!r} is not a file in --document-root {root}")
            self._check_size(file.stat().st_size, name)
            return file.read_bytes()
        except (OSError, ValueError) as error:
            raise CommandError(f"{name!r} in --document-root cannot be read: {error}") from error

    def _download(self, url: httpx.URL, quoted: str) -> bytes:
        try:
            for _ in range(MAX_REDIRECTS):
                self._check(url)
                content, location = self._get(url)
                if location is None:
                    return content
                url = url.join(location)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CommandError(f"the image {quoted} cannot be read: {error}") from error
        raise CommandError(f"the image {quoted} has more than {MAX_REDIRECTS} redirects")

    def _get(self, url: httpx.URL, *, is_retry: bool = False) -> tuple[bytes, str | None]:
        """Send a request; return the content, or the location of a redirect."""
        headers = self._authorization.headers() if self._is_label_studio(url) else {}
        with self._client.stream("GET", url, headers=headers) as response:
            if response.has_redirect_location:
                return b"", response.headers["location"]
            if response.status_code != httpx.codes.UNAUTHORIZED or is_retry or not headers:
                return self._content(response, url), None
        self._authorization.expire()
        return self._get(url, is_retry=True)

    def _content(self, response: httpx.Response, url: httpx.URL) -> bytes:
        if response.is_error:
            raise CommandError(
                f"{_shown(url)} cannot be read: HTTP {response.status_code}"
                + ("; check --token-file" if response.status_code in (401, 403) else "")
            )
        content = bytearray()
        for chunk in response.iter_bytes():
            content += chunk
            self._check_size(len(content), _shown(url))
        return bytes(content)

    def _check_size(self, size: int, name: str) -> None:
        if size > self._max_bytes:
            raise CommandError(
                f"the image {name} has more than {self._max_bytes} bytes; use a smaller image"
            )

    def _is_label_studio(self, url: httpx.URL) -> bool:
        return self._base is not None and _origin(url) == _origin(self._base)

    def _check(self, url: httpx.URL) -> None:
        """Raise CommandError if a URL may not be requested."""
        if url.scheme not in ("http", "https"):
            raise CommandError(f"{_shown(url)} is not an http or https URL")
        if self._is_label_studio(url):
            path = unquote(url.path)
            prefix = str(self._base.path).rstrip("/") if self._base else ""
            if ".." in path.split("/") or not FILE_PATHS.match(path.removeprefix(prefix)):
                raise CommandError(f"{_shown(url)} is not a file of Label Studio")
        elif not {url.host, f"{url.host}:{_origin(url)[2]}"} & self._allowed_hosts:
            raise CommandError(
                f"{_shown(url)} is on the host {url.host}, which is not allowed; "
                f"allow it with --allow-host {url.host}"
            )


def _data_uri(reference: str) -> bytes:
    header, comma, data = reference.partition(",")
    try:
        if not comma:
            raise ValueError("it has no comma")
        if header.endswith(";base64"):
            return base64.b64decode(unquote_to_bytes(data), validate=True)
        return unquote_to_bytes(data)
    except (ValueError, binascii.Error) as error:
        raise CommandError(f"the data: URI of the image cannot be read: {error}") from error


def _task_number(task_id: object) -> int:
    if isinstance(task_id, int):
        return task_id
    raise CommandError(f"the task's id is {task_id!r}; expected a number, to read from a bucket")


def _checked_url(text: str) -> httpx.URL:
    url = _parsed(text)
    if url.scheme not in ("http", "https") or not url.host:
        raise CommandError(
            f"--label-studio-url {text} is not valid; expected http(s)://HOST[:PORT]"
        )
    return url


def _parsed(text: str) -> httpx.URL:
    try:
        return httpx.URL(text)
    except (httpx.InvalidURL, ValueError) as error:
        quoted = text[:MAX_QUOTED_CHARACTERS]
        raise CommandError(f"the image {quoted!r} is not a path or URL: {error}") from error


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def _shown(url: httpx.URL) -> str:
    """A URL without its query, which may contain a signature, and without credentials."""
    return str(url.copy_with(query=None, userinfo=b""))[:MAX_QUOTED_CHARACTERS]
