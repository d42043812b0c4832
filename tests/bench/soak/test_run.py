"""A Ctrl-C in the middle, and what a server's quiet answers have to be."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from bench.load.answers import Answer
from bench.load.notes import BEGAN_AT, Notebook, Noted
from bench.load.plan import Plan
from bench.load.requests import CLOSED, KEPT, Request
from bench.load.traffic import Traffic
from bench.soak import run
from bench.soak.arguments import parse
from bench.soak.found import Found, Size
from bench.soak.good import good_kinds
from bench.soak.outcomes import RIGHT
from d2serve.errors import CommandError
from tests.bench.soak.made_up import KINDS
from tests.bench.soak.test_found import FORMS, GOLDENS, as_default
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
    path, _, form = request.name.partition(" as ")
    picture = Path(path).name
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


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_text("none")
    with pytest.raises(CommandError, match=r"a\.png cannot be read by Pillow"):
        good_kinds([picture], "no golden", lambda _: b"", tmp_path)


def test_every_way_of_every_picture_has_a_name_of_its_own(tmp_path: Path) -> None:
    def ask(request: Request) -> bytes:
        """As a server would that knows each picture by its name, in every form."""
        path, _, form = request.name.partition(" as ")
        golden = GOLDENS[SAMPLES.index(Path(path))]
        with Image.open(path) as picture:
            return drawn(path) if form.endswith("drawn") else answer(golden, form, picture.size)

    kinds = good_kinds(SAMPLES, "shapes", ask, tmp_path)
    assert len({kind.name for kind in kinds}) == len(kinds)
    types = {kind.request.headers["Content-Type"] for kind in kinds}
    assert types == {"image/jpeg", "image/png", "application/x-npy", "application/json"}
    assert {kind.request.manner for kind in kinds} == {KEPT, CLOSED}


def answer(golden: Found, form: str, size_wh: Size) -> bytes:
    write, _ = FORMS[form.rpartition("-> ")[2].removesuffix(", alone")]
    return write(golden, size_wh)
