"""The servers that a sweep measures: one started for each setting, or one that runs already."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.load.cpu import server_behind
from bench.load.serving import ServingSettings, configure
from bench.load.traffic import Target
from scripts.torchserve import running_server


@dataclass(frozen=True)
class Opened:
    """A server that is ready: what to send where, and its process where that is known."""

    target: Target
    process: int | None


# Opens a server with these settings for as long as a `with` block runs.
Opener = Callable[[ServingSettings | None], AbstractContextManager[Opened]]


class KeptServer:
    """Keeps the last server open, for as long as its settings are asked for.

    Used as a context manager, which closes it at the end.
    """

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._stack = ExitStack()
        self._kept: tuple[ServingSettings | None, Opened] | None = None

    def __enter__(self) -> "KeptServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def open(self, settings: ServingSettings | None) -> Opened:
        """The server with these settings; another one that is open is closed before."""
        if self._kept is None or self._kept[0] != settings:
            self._close()
            self._kept = settings, self._stack.enter_context(self._opener(settings))
        return self._kept[1]

    def _close(self) -> None:
        self._kept = None
        self._stack.close()


def own_server(model: Path, pictures: Sequence[Path], logs: Path) -> Opener:
    """Serves an unpacked model, with each of the settings in turn.

    Args:
        model: the folder, whose model-config.yaml is rewritten.
        pictures: to be sent.
        logs: the folder of the server's logs.
    """

    @contextmanager
    def opened(settings: ServingSettings | None) -> Iterator[Opened]:
        assert settings
        configure(model, settings)
        with running_server(model, log_dir=logs) as server:
            url = f"{server.url}/predictions/{server.model_name}"
            yield Opened(Target(url, pictures), server.process.pid)

    return opened


def running_already(target: Target) -> Opener:
    """Takes the server at the target's URL as it is."""

    @contextmanager
    def opened(_: ServingSettings | None) -> Iterator[Opened]:
        yield Opened(target, server_behind(target.url))

    return opened
