from pathlib import Path
from typing import NoReturn

import pytest

from d2serve.cli import sagemaker_local
from d2serve.errors import CommandError
from d2serve.servers.torchserve.launcher.ports import Ports
from tests.building.test_package import MANIFEST, OURS, write_package

KINDS = pytest.mark.parametrize(
    ("file", "more"), [("a.tar.gz", []), ("a.mme.tar.gz", ["--multi-model"])], ids=["one", "many"]
)


def stopped(*_: object, **__: object) -> NoReturn:
    """Ctrl-C in the place of a container."""
    raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def no_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sagemaker_local, "running_container", stopped)


@KINDS
def test_being_stopped_is_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, more: list[str]
) -> None:
    write_package(tmp_path / file, **{MANIFEST: OURS})
    arguments = ["--name", "a", "--model-store", str(tmp_path)]
    arguments += ["--port", str(Ports.free().inference)]
    assert sagemaker_local.main([*arguments, *more]) == 0
    assert capsys.readouterr().out == "stopped\n"


@KINDS
def test_nothing_is_started_without_a_package(tmp_path: Path, file: str, more: list[str]) -> None:
    with pytest.raises(CommandError, match=f"{file} does not exist; build it: make package NAME=a"):
        sagemaker_local.main(["--name", "a", "--model-store", str(tmp_path), *more])
