"""A Ctrl-C in the middle, and what a server's quiet answers have to be."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.load.answers import Answer
from bench.load.notes import BEGAN_AT, Notebook, Noted
from bench.load.plan import Plan
from bench.load.requests import Request
from bench.load.traffic import Traffic
from bench.soak import run
from bench.soak.arguments import parse
from bench.soak.good import good_kinds
from bench.soak.outcomes import RIGHT
from scripts.errors import CommandError
from tests.bench.soak.made_up import KINDS
from tests.bench.soak.test_found import GOLDENS, as_default
from tests.bodies import image_bytes, noise
from tests.goldens.cases import SAMPLES

SERVER: Any = SimpleNamespace(process=SimpleNamespace(pid=0))


def plan_in(folder: Path) -> Plan:
    return Plan("http://x/", [], 0.0, 0.0, 60.0, 10.0, str(folder / "notes"), str(folder))


def test_after_a_ctrl_c_there_is_what_was_noted_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(plan: Plan, _: Traffic) -> Noted:
        book = Notebook(Path(plan.notes), Path(plan.bodies))
        book.fact(BEGAN_AT, 1000.0)
        digest = book.keep(b"fine")
        for due in (-1.0, 2.0, 4.0):
            book.answer(Answer(due, due + 1, 200, whole=True, name="good", digest=digest))
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "generate", interrupted)
    soaked = run.send(parse([]), SERVER, plan_in(tmp_path), list(KINDS.values()))
    assert soaked.interrupted
    assert [each.outcome for each in soaked.judged] == [RIGHT] * 3
    assert (soaked.seconds, soaked.generator_cpu_s) == (5.0, None)


def test_a_ctrl_c_before_the_begin_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Plan, __: Traffic) -> Noted:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "generate", interrupted)
    soaked = run.send(parse([]), SERVER, plan_in(tmp_path), list(KINDS.values()))
    assert soaked.interrupted
    assert not soaked.judged


def drawn(name: str) -> bytes:
    seed = sum(name.encode())
    return image_bytes(noise(48, 64, 3, seed=seed), "PNG")


def answers_of(request: Request) -> bytes:
    """As a server would that knows a picture by its name, and the default form alone."""
    picture, _, form = request.name.partition(" as ")
    if form.endswith("drawn"):
        return drawn(picture)
    return as_default(GOLDENS[[sample.name for sample in SAMPLES].index(picture)])


def test_a_server_whose_quiet_answers_are_wrong_is_not_soaked(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="before the soak began, the answer is wrong"):
        good_kinds(SAMPLES[:1], "shapes", answers_of, tmp_path)


def test_pictures_that_get_the_same_answer_are_refused(tmp_path: Path) -> None:
    def always_the_same(request: Request) -> bytes:
        return drawn("any") if request.name.endswith("drawn") else as_default(GOLDENS[0])

    pictures = [tmp_path / name for name in ("a.png", "b.png")]
    for picture in pictures:
        picture.write_bytes(image_bytes(noise(480, 640, 3), "PNG"))
    with pytest.raises(CommandError, match=r"a\.png and b\.png have the same answer"):
        good_kinds(pictures, "no golden", always_the_same, tmp_path)
