"""A batch job that is killed at random moments and resumed, with damaged images; then its check."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.arguments import add_target, parser_of, share, whole
from bench.batch.images import write_images
from bench.batch.jobs import check, job_words
from bench.report import Table, progress, write_report
from tests.environment import clean_environment

COLUMNS = ("images", "damaged", "kills", "rows", "missing", "repeated", "wrong", "left over", "s")
NO_PROGRESS_S = 300.0
# Beyond the moment at which a part appears, so that kills come at any moment of the work.
MAX_DELAY_S = 3.0


@dataclass(frozen=True)
class Job:
    """A job that is run again and again: its command line, output and log."""

    words: Sequence[str]
    output: Path
    log: Path

    def finished(self) -> int:
        """Number of parts that are finished."""
        return len(list((self.output / "parts").glob("*.parquet")))

    def parts(self) -> int:
        """Number of parts; 0 before the job has begun."""
        try:
            content = json.loads((self.output / "job.json").read_text())
        except FileNotFoundError:
            return 0
        size = content["images_per_part"]
        return sum(-(-count // size) for count in content["lists"])

    def run(self, kill_at: float | None = None, delay_s: float = 0.0) -> int:
        """Run the job to its end, or kill it.

        Args:
            kill_at: the finished part of the job, from 0 to 1, at which it is killed.
            delay_s: and how much later.

        Returns:
            The exit code; -9 when killed.

        Raises:
            TimeoutError: the job finishes no parts any more.
        """
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.words,
                env=clean_environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        finished, since = self.finished(), time.monotonic()
        try:
            while process.poll() is None:
                if self.finished() != finished:
                    finished, since = self.finished(), time.monotonic()
                if time.monotonic() - since > NO_PROGRESS_S:
                    raise TimeoutError(f"no part within {NO_PROGRESS_S:g} s; see {self.log}")
                parts = self.parts()
                if kill_at is not None and parts and finished >= kill_at * parts:
                    time.sleep(delay_s)
                    break
                time.sleep(0.02)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job; writes batch-chaos.json and .md.

    Returns:
        1 if an image is missing, repeated or wrong, or if files are left over.
    """
    parser = parser_of("batch-chaos", __doc__)
    add_target(parser, url=False)
    parser.add_argument("--count", type=whole, default=20_000, help="number of images")
    parser.add_argument("--kills", type=whole, default=3, help="number of times it is killed")
    parser.add_argument("--bad", type=share, default=0.01, help="share of damaged images")
    parser.add_argument("--seed", type=int, default=0, help="of images and moments")
    given = parser.parse_args(arguments)
    folder = given.output.absolute() / "batch-chaos-files"
    shutil.rmtree(folder, ignore_errors=True)
    progress(f"writing {given.count} images to {folder}")
    images = write_images(folder / "in", given.images, given.count, given.bad, given.seed)
    words = job_words(given.model.resolve(), folder / "in", folder / "out", "--format", "jsonl")
    job = Job(words, folder / "out", folder / "job.log")
    draw, started, events = random.Random(given.seed), time.monotonic(), []  # noqa: S311
    for moment in sorted(draw.random() for _ in range(given.kills)):
        code = job.run(moment, draw.uniform(0, MAX_DELAY_S))
        events.append({"exit_code": code, "finished": job.finished(), "parts": job.parts()})
        progress(f"killed: {events[-1]}")
    code = job.run()
    seconds = time.monotonic() - started
    found = check(folder / "out", images) if code == 0 else None
    progress(f"exit code {code}; {found}")
    if found is None:
        return 1
    kills = sum(event["exit_code"] == -signal.SIGKILL for event in events)
    row = tuple(map(str, (given.count, len(images.bad), kills, *found, round(seconds))))
    data = {"row": dict(zip(COLUMNS, row, strict=True)), "events": events}
    table = Table("Killed batch job", COLUMNS, [row])
    write_report(given.output / "batch-chaos", [table], data)
    if found.passed:
        shutil.rmtree(folder)
    return int(not found.passed)
