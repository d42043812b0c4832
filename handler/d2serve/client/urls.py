"""URLs of servers and of their prediction routes."""

from urllib.parse import quote

import httpx

from d2serve.errors import CommandError

DEFAULT_PATH = "/invocations"
DEFAULT_SERVER = "http://127.0.0.1:8080"
DEFAULT_URL = f"{DEFAULT_SERVER}{DEFAULT_PATH}"


def route_url(url: str, model: str | None = None) -> str:
    """The URL of a prediction route.

    Args:
        url: URL of a route, or the address of a server, which stands for its default route.
        model: name of one of the models of a server, whose address is given.

    Raises:
        CommandError: the URL is invalid, or contains a route although a model is named.
    """
    host_of(url)
    parsed = httpx.URL(url)
    if parsed.path == "/":
        path = f"/predictions/{quote(model, safe='')}" if model else DEFAULT_PATH
        return str(parsed.copy_with(raw_path=path.encode()))
    if model:
        raise CommandError(
            f"{url} contains a route, and model is {model!r}; give the address of the server, such "
            f"as {parsed.scheme}://{parsed.netloc.decode()}"
        )
    return url


def host_of(url: str) -> str:
    """The host of a URL.

    Raises:
        CommandError: the URL is invalid, or not one of HTTP.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise CommandError(
            f"{url!r} is not a URL ({error}); expected one such as {DEFAULT_URL}"
        ) from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise CommandError(f"{url!r} is not an HTTP URL; expected one such as {DEFAULT_URL}")
    return parsed.host
