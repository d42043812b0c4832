"""The token that clients of a server need."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from d2serve.errors import CommandError
from d2serve.servers.asgi.config import TOKEN_VARIABLE
from d2serve.text_files import decode_text

TOKEN_FILE = "token"  # noqa: S105
MIN_LENGTH = 8


def given_token(file: Path | None, environment: Mapping[str, str] = os.environ) -> str:
    """The token that the operator has chosen; empty for none.

    Args:
        file: contains the token; it wins over the environment.
        environment: may contain D2SERVE_SERVER_TOKEN.

    Raises:
        CommandError: the file cannot be read, or the text cannot be a token.
    """
    if file is None:
        source, token = f"the variable {TOKEN_VARIABLE}", environment.get(TOKEN_VARIABLE, "")
        return _checked(token.strip(), source) if token else ""
    try:
        return _checked(decode_text(file.read_bytes()).strip(), f"--token-file {file}")
    except (OSError, UnicodeError) as error:
        raise CommandError(f"--token-file {file} cannot be read: {error}") from error


def new_token() -> str:
    """A random token of 256 bits."""
    return secrets.token_urlsafe(32)


def write_token(folder: Path, token: str) -> Path:
    """Write a token to a file that only this user can read; return the file."""
    file = folder / TOKEN_FILE
    file.touch(mode=0o600, exist_ok=False)
    file.write_text(token + "\n", encoding="ascii")
    return file


def _checked(token: str, source: str) -> str:
    is_plain = token.isascii() and token.isprintable() and " " not in token
    if not is_plain or len(token) < MIN_LENGTH:
        raise CommandError(
            f"{source} is not a token: use at least {MIN_LENGTH} printable ASCII characters "
            "without spaces, such as the output of `openssl rand -hex 32`"
        )
    return token


def token_source_of(home: Path, given: str, token: str, token_file: Path | None) -> str | None:
    """Describe where the operator finds the token; None if requests need none.

    Args:
        home: folder of the server, for a generated token.
        given: the operator's token; empty for none.
        token: the token that requests need; empty for none.
        token_file: the operator's file with the token, if any.
    """
    if not token:
        return None
    if not given:
        return f"the content of {write_token(home, token)}"
    return f"the content of {token_file}" if token_file else f"the value of {TOKEN_VARIABLE}"
