"""The token of requests to Label Studio."""

import threading

import httpx

from d2serve.errors import CommandError

JWT_DOTS = 2


class Authorization:
    """Creates the header of requests to Label Studio.

    A legacy token is sent as it is. A personal access token is exchanged for one that is valid for
    minutes.

    Args:
        client: sends the requests.
        base: Label Studio's base URL.
        token: either token; empty for none.
    """

    def __init__(self, client: httpx.Client, base: httpx.URL | None, token: str) -> None:
        self._client = client
        self._base = base
        self._token = token
        self._access = ""
        self._lock = threading.Lock()

    def headers(self) -> dict[str, str]:
        """The header, if there is a token.

        Raises:
            CommandError: Label Studio does not accept the personal access token.
            httpx.HTTPError: it cannot be reached.
        """
        if self._token.count(".") != JWT_DOTS:
            return {"Authorization": f"Token {self._token}"} if self._token else {}
        with self._lock:
            self._access = self._access or self._refreshed()
            return {"Authorization": f"Bearer {self._access}"}

    def expire(self) -> None:
        """Request another access token for the next request."""
        with self._lock:
            self._access = ""

    def _refreshed(self) -> str:
        url = str(self._base).rstrip("/") + "/api/token/refresh/"
        response = self._client.post(url, json={"refresh": self._token})
        if response.is_error:
            raise CommandError(
                f"Label Studio does not accept the personal access token: HTTP "
                f"{response.status_code}; create another one and check --token-file"
            )
        return str(response.json()["access"])
