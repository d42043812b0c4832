"""The servers that a sweep measures: one started for each setting, or one that runs already."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
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
