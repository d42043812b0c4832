"""The soak: expected responses, outcomes, checks, kills and the report."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.loadgen.client import MARK, Request
from bench.loadgen.generator import ClosedLoop, Plan, Record, Recording
from bench.processes import JAVA, PROXY, WORKER, Snapshot, Usage
from bench.soak import command, expected, outcomes
from bench.soak.checks import Growth, checks, growths
from bench.soak.command import Soaked, parse, report
from bench.soak.expected import TO_GOLDEN, Expected, Found, Size, difference
from bench.soak.outcomes import NEVER, Checked, Restart, check_records, doubled, killing
from bench.soak.servers import Target
from bench.soak.traffic import Kind, good_kinds, hostile_kinds
from d2serve.errors import CommandError
from tests.bench.fake_server import Capture, Patch
from tests.bodies import image_bytes, noise
from tests.goldens.cases import SAMPLES, TRAINED

SIZE_WH, SECONDS, RESTART = (640, 480), 300.0, Restart(150.0, 154.0)
GOLDENS = [expected.read_golden(TRAINED.result_path(image)) for image in SAMPLES]


def write_default(found: Found, size_wh: Size = SIZE_WH) -> bytes:
    image = {"width": size_wh[0], "height": size_wh[1]}
    arrays = {"boxes": found.boxes_xyxy, "scores": found.scores, "classes": found.classes}
    lists = {name: each.tolist() for name, each in arrays.items()}
    return json.dumps({**lists, "masks": list(found.masks or []), "image": image}).encode()


def test_responses_to_other_images_are_told_apart() -> None:
    for one in GOLDENS:
        for other in GOLDENS:
            found = expected.read_default(write_default(other), SIZE_WH)
            assert (difference(one, found, TO_GOLDEN) == "") == (one is other)
    nothing = Found.of([], [], [], [])
    found = expected.read_default(write_default(nothing), SIZE_WH)
    assert difference(nothing, found, TO_GOLDEN) == ""


def changed(name: str, by: float) -> Found:
    values = getattr(GOLDENS[0], name).copy()
    values[0] += by
    return GOLDENS[0]._replace(**{name: values})


def test_a_difference_is_named() -> None:
    golden: Any = GOLDENS[0]
    masks = list(golden.masks)
    found = {
        "instances, expected": Found(*(each[1:] for each in golden)),
        "another class or place": changed("classes", 1),
        "a box is 0.060 px off": changed("boxes_xyxy", 0.06),
        "a score is 0.00200 off": changed("scores", -0.002),
        "a mask has an IoU of": golden._replace(masks=[masks[1], *masks[1:]]),
    }
    for text, each in found.items():
        assert text in difference(golden, each, TO_GOLDEN)
    turned = Found(*(each[::-1] for each in golden))
    assert difference(golden, turned, TO_GOLDEN) == ""
    with pytest.raises(ValueError, match="640"):
        expected.read_default(write_default(golden), (641, 480))


def test_faults_of_marks_images_and_errors() -> None:
    inner = expected.detected(expected.read_default, SIZE_WH, GOLDENS[0], TO_GOLDEN)
    body, marked = write_default(GOLDENS[0]), expected.marked(inner)
    assert marked.fault(b'{"id": "%s", ' % MARK + body[1:]) == ""
    assert marked.fault(b'{"id": "b", ' + body[1:]) == "the response to another request"
    assert inner.fault(b"{}").startswith("unreadable: ")
    image = noise(64, 64, 3)
    few, many = image.copy(), image.copy()
    few[0, :16] ^= 0x80
    many[0, :32] ^= 0x80
    drawn = expected.drawn(image_bytes(image, "PNG"))
    faults = [drawn.fault(image_bytes(each, "PNG")) for each in (image, few, many, image[1:])]
    assert faults[:3] == ["", "", "0.8% of the pixels differ"]
    assert "expected (64, 64, 3)" in faults[3]
    assert drawn.fault(b"").startswith("not an image")
    good = {"code": "too_large", "message": "a", "hint": "b"}
    refused = expected.refused(413, "too_large")
    assert refused.fault(json.dumps({"error": good}).encode()) == ""
    for wrong in (good | {"code": "internal"}, good | {"hint": ""}, good | {"more": 1}, "text"):
        assert refused.fault(json.dumps({"error": wrong}).encode())


def test_idle_responses_are_checked_and_names_are_unique(tmp_path: Path) -> None:
    kinds = list(hostile_kinds(SAMPLES[0]))
    assert len({kind.name for kind in kinds}) == len(kinds) > 40
    same = image_bytes(noise(480, 640, 3), "PNG")
    images = [tmp_path / name for name in ("a.png", "b.png")]
    for image in images:
        image.write_bytes(same)
    with pytest.raises(CommandError, match="wrong response before the soak: unreadable"):
        good_kinds(images[:1], "", lambda r: same if "npy" in r.name else write_default(GOLDENS[0]))
    with pytest.raises(CommandError, match=r"a\.png and b\.png have the same response"):
        good_kinds(images, "", lambda _: write_default(GOLDENS[0]))
    images[0].write_text("none")
    with pytest.raises(CommandError, match=r"Pillow cannot read .*a\.png"):
        good_kinds(images, "", lambda _: b"")


FINE = Expected(200, lambda body: "" if body == b"fine" else "not fine")
KINDS = {
    "good": Kind(Request("good", b""), FINE, False),
    "bad": Kind(Request("bad", b""), expected.refused(400, "bad_request"), True),
    "leaves": Kind(Request("leaves", b""), None, True),
}
CASES = [
    ("good", 10, 200, b"fine", outcomes.RIGHT),
    ("good", 10, 200, b"other", outcomes.WRONG),
    ("good", 10, 400, b"bad_request", outcomes.WRONG),
    ("good", 10, 500, b"internal", outcomes.FAILED),
    ("good", 10, 0, b"", outcomes.LOST),
    ("good", 151, 500, b"internal", outcomes.FAILED_BY_RESTART),
    ("good", 151, 500, b"own words", outcomes.FAILED),
    ("bad", 10, 400, b"bad_request", outcomes.REFUSED),
    ("bad", 10, 413, b"bad_request", outcomes.NOT_REFUSED),
    ("bad", 10, 200, b"fine", outcomes.NOT_REFUSED),
    ("leaves", 10, 0, b"", outcomes.DISCONNECTED),
]


def test_outcomes(tmp_path: Path) -> None:
    records = []
    for name, due, status, body, _ in CASES:
        is_code = body in (b"bad_request", b"internal")
        error = {"error": {"code": body.decode(), "message": "a", "hint": "b"}}
        digest = body.decode() or "none"
        (tmp_path / digest).write_bytes(json.dumps(error).encode() if is_code else body)
        records.append(Record(due, due + 0.5, status, status > 0, name, digest))
    found = check_records(records, KINDS, [RESTART], tmp_path)
    assert [each.outcome for each in found] == [case[-1] for case in CASES]
    cut = [records[0]._replace(whole=False), records[5]._replace(status=0, whole=False)]
    lost = check_records(cut, KINDS, [RESTART], tmp_path)
    assert [each.outcome for each in lost] == [outcomes.LOST] * 2
    lost = check_records(cut, KINDS, [RESTART], tmp_path, worker_has_connections=True)
    assert [each.outcome for each in lost] == [outcomes.LOST, outcomes.FAILED_BY_RESTART]
    ids = [records[0]._replace(request_id=each) for each in ("a", "b", "")]
    runs = (ids, [*ids, ids[0]], [ids[0]._replace(surplus=7)])
    assert list(map(doubled, runs)) == [0, 1, 1]


def checked(slow: range = range(0)) -> list[Checked]:
    """Ten right responses a second for five minutes; those of `slow` take longer."""
    times = [(each / 10, each / 10 + (1.2 if each in slow else 0.5)) for each in range(3000)]
    records = [Record(*each, 200, True, "good", "a", str(each[0])) for each in times]
    spans = [RESTART.overlaps(*each) for each in times]
    return [Checked(r, False, outcomes.RIGHT, "", s) for r, s in zip(records, spans, strict=True)]


def snapshots(growth: float = 0.0, of: str = JAVA) -> list[Snapshot]:
    """A second apart; a role grows evenly after the first minute; the worker is restarted."""
    found = []
    for second in range(300):
        sizes = {JAVA: 400e6, PROXY: 300e6, WORKER: 600e6}
        sizes[of] *= 1 + growth * max(0, second - 60) / 240
        pids = {JAVA: 9, PROXY: 8, WORKER: 1 if second < 150 else 2}
        usages = {pids[role]: Usage(role, round(size)) for role, size in sizes.items()}
        found.append(Snapshot(float(second), usages))
    return found


CALM = growths(snapshots(), [RESTART])


def failed(rows: Sequence[Checked], restarts: Any = (RESTART,), growth: Any = CALM) -> list[str]:
    return [row.name for row in checks(rows, restarts, 1, growth, SECONDS) if not row.passed]


def test_one_fault_fails_its_check() -> None:
    assert failed(checked()) == []
    names = {outcomes.WRONG: "wrong", outcomes.NOT_REFUSED: "hostile", outcomes.LOST: "lost"}
    for outcome, name in {**names, outcomes.FAILED: "5xx outside"}.items():
        [found] = failed([checked()[0]._replace(outcome=outcome), *checked()[1:]])
        assert found.startswith(name)
    assert failed([checked()[0], *checked()]) == ["doubled responses"]
    assert failed(checked(), [Restart(150.0, NEVER)]) == ["killed workers that are back"]
    assert len(failed([], [], [])) == 5


def test_latency_may_not_double_and_memory_may_not_grow() -> None:
    both = ["p99 / p99 of the first minute", "worst minute's p99 / p99 of the first minute"]
    assert failed(checked(range(2000, 2020))) == both[1:]
    assert failed(checked(range(600, 3000))) == both
    assert failed(checked(range(600))) == failed(checked(range(1500, 1540))) == []
    for role in (JAVA, PROXY, WORKER):
        growth = growths(snapshots(0.4, role), [RESTART])
        assert f"memory growth: {role}" in failed(checked(), growth=growth)
    assert failed(checked(), growth=growths(snapshots(0.04), [RESTART])) == []
    assert failed(checked(), growth=[Growth(JAVA, 20e6, 29e6)]) == []
    assert growths(snapshots()[:15], []) == []


def test_workers_are_killed_and_their_return_is_recorded(request: pytest.FixtureRequest) -> None:
    def start() -> "subprocess.Popen[bytes]":
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        request.addfinalizer(worker.wait)
        request.addfinalizer(worker.kill)
        return worker

    def ready() -> set[int]:
        if workers[0].poll() is not None:
            workers[0] = start()
        return {worker.pid for worker in workers if worker.poll() is None}

    workers = [start(), start()]
    before = ready()
    with killing(ready, [0.0]) as restarts:
        while not restarts:
            time.sleep(0.01)
    assert restarts[0].killed_at < restarts[0].back_at
    assert ready() != before
    with killing(lambda: {pid for pid in before if psutil.pid_exists(pid)}, [60.0]) as restarts:
        pass
    assert restarts == []


def test_a_report_after_a_ctrl_c(tmp_path: Path, monkeypatch: Patch, capsys: Capture) -> None:
    def interrupted(_: Plan, recording: Recording) -> None:
        (tmp_path / "fine").write_bytes(b"fine")
        times = ((due, due + 1.0, 200, True, "good", "fine") for due in (-1.0, 2.0, 4.0))
        recording.began_at, recording.records = 1000.0, [Record(*each) for each in times]
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "generate", interrupted)
    server = Target("http://x", "shapes", members=list, ready=set)
    plan = Plan("http://x/", [], ClosedLoop(1), 60.0, bodies=tmp_path)
    soaked = command.send(server, plan, list(KINDS.values()), [])
    assert (soaked.interrupted, soaked.seconds, len(soaked.checked)) == (True, 5.0, 3)
    wrong = checked()[0]._replace(outcome=outcomes.WRONG, reason="a reason")
    rows = [wrong, *checked()[1:]]
    whole = Soaked(SECONDS, rows, [RESTART], snapshots(), 1, 299.0, True)
    assert not report(tmp_path, whole)
    printed, content = capsys.readouterr().out, json.loads((tmp_path / "soak.json").read_text())
    assert content["faults"][0]["fault"] == "a reason"
    assert "Interrupted after 5.0 minutes" in printed
    assert "used 100 % of its core" in printed
    assert (tmp_path / "soak.png").stat().st_size > 10_000


def test_the_command_line(capsys: Capture) -> None:
    given, kills = parse([])
    assert (given.minutes, given.clients, given.hostile) == (30, 32, 0.1)
    assert kills == [300, 600, 900, 1200, 1500]
    assert parse(["--minutes", "1.5", "--kill-every", "45"])[1] == [45]
    assert parse(["--kill-every", "0"])[1] == []
    for wrong in (["--minutes", "0"], ["--hostile", "1"], ["--kill-every", "-1"]):
        with pytest.raises(SystemExit):
            parse(wrong)
        assert f"received '{wrong[1]}', expected a number" in capsys.readouterr().err
