"""TorchServe's tokens, which it draws anew at each start and writes into a file."""

import json
from pathlib import Path

# TorchServe writes it where it runs, readable to its own user alone.
KEY_FILE = "key_file.json"
# What our own commands take a token from.
TOKEN_VARIABLE = "D2SERVE_TOKEN"  # noqa: S105


def read_token(key_file: Path, api: str) -> str | None:
    """The token of one API, `inference` or `management`; None while TorchServe is writing."""
    try:
        token: str = json.loads(key_file.read_text(encoding="utf-8"))[api]["key"]
    except (OSError, ValueError, KeyError):
        return None
    return token


def authorization(token: str | None) -> dict[str, str]:
    """The headers of a request with a token; none without."""
    return {"Authorization": f"Bearer {token}"} if token else {}
