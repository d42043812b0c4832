from pathlib import Path
from typing import NoReturn

import pytest

from d2serve.aws import local_container
from d2serve.cli.main import invoke
from d2serve.errors import ArchiveError
from d2serve.servers.torchserve.launcher.ports import Ports
from tests.building.test_package import MANIFEST, VALID_MANIFEST, write_package

CONTAINER_TYPES = pytest.mark.parametrize(
    ("file", "more"), [("a.tar.gz", []), ("a.mme.tar.gz", ["--multi-model"])], ids=["one", "many"]
)


def interrupt(*_: object, **__: object) -> NoReturn:
    """A fake container that runs until Ctrl-C."""
    raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_container, "running_container", interrupt)


@CONTAINER_TYPES
def test_interrupt_is_not_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, more: list[str]
) -> None:
    write_package(tmp_path / file, **{MANIFEST: VALID_MANIFEST})
    arguments = ["--name", "a", "--model-store", str(tmp_path)]
    arguments += ["--port", str(Ports.free().inference)]
    assert invoke(["sagemaker-local", *arguments, *more]) == 0
    assert capsys.readouterr().out == "stopped\n"


@CONTAINER_TYPES
def test_missing_package(tmp_path: Path, file: str, more: list[str]) -> None:
    message = f"{file} does not exist; build it: d2serve package --name a"
    with pytest.raises(ArchiveError, match=message):
        invoke(["sagemaker-local", "--name", "a", "--model-store", str(tmp_path), *more])
