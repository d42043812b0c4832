"""The supervised server with a real archive: start, restarts, stop and the command line."""

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from d2serve.errors import CommandError, ServerError
from d2serve.servers.asgi.config import ServerConfig
from d2serve.servers.asgi.supervisor import Supervisor, running_server
from d2serve.servers.asgi.token import given_token
from d2serve.servers.asgi.watchdog import UNUSABLE
from d2serve.servers.exposure import ANY, LOOPBACK
from tests.polling import wait_until

TIMEOUT_S, READY_WITHIN_S = 60, 180
ANY_PORT = ServerConfig(folders={}, port=0)
PROGRAM = ("-m", "d2serve.cli.main", "serve")
WATCHED = """
import sys, time
from d2serve.servers.asgi.watchdog import start_watchdog
started = time.monotonic()
start_watchdog([lambda: 0.0, lambda: time.monotonic() - started], float(sys.argv[1]))
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def server(shapes_mar: Path, tmp_path: Path) -> Iterator[Supervisor]:
    with (
        (tmp_path / "server.log").open("wb") as log,
        running_server([shapes_mar], ANY_PORT, log=log) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def image(repo_root: Path) -> bytes:
    return (repo_root / "models/shapes/samples/shapes_01.jpg").read_bytes()


def predict(server: Supervisor, image: bytes) -> httpx.Response:
    return httpx.post(f"{server.url}/invocations", content=image, timeout=TIMEOUT_S)


def is_busy(server: Supervisor) -> bool:
    """True if images are being processed."""
    text = get(server, "/metrics").text
    return bool(re.search(r"^d2serve_queued_images\{.*\} [1-9]", text, re.MULTILINE))


def get(server: Supervisor, path: str = "/ping") -> httpx.Response:
    return httpx.get(server.url + path, timeout=TIMEOUT_S)


def test_a_killed_server_is_restarted_and_a_stopped_one_is_not(
    server: Supervisor,
    image: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.wait_until_ready(READY_WITHIN_S)
    first = server.process.pid
    server.process.kill()
    wait_until(lambda: server.restarts == 1)
    # The port stays open, so that this request waits for the new process.
    assert predict(server, image).status_code in (200, 503)
    wait_until(lambda: get(server).status_code == 200)
    assert predict(server, image).status_code == 200
    assert server.process.pid != first
    fail_to_start(server, monkeypatch, caplog)
    server.stop()
    assert server.process.returncode == 0
    assert server.restarts == 2
    with pytest.raises(httpx.ConnectError):
        get(server)


def fail_to_start(
    server: Supervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Kill a server whose next process cannot be started twice; it is tried again."""
    failures = [OSError(errno.ENOMEM, "out of memory"), OSError(errno.EMFILE, "too many files")]
    start = subprocess.Popen

    def sometimes(*arguments: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return start(*arguments, **options)

    monkeypatch.setattr("d2serve.servers.asgi.supervisor.subprocess.Popen", sometimes)
    monkeypatch.setattr("d2serve.servers.asgi.supervisor.LONGEST_BACKOFF_S", 0.5)
    server.process.kill()
    wait_until(lambda: server.restarts == 2)
    assert [each for each in ("out of memory", "too many files") if each not in caplog.text] == []
    assert "cannot be started" in caplog.text
    wait_until(lambda: get(server).status_code == 200)


@contextmanager
def begun_request(server: Supervisor, image: bytes) -> Iterator[socket.socket]:
    """A client whose request the server has begun to read; it has sent the head."""
    head = f"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: {len(image)}\r\n"
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection((LOOPBACK, port), TIMEOUT_S) as client:
        client.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 100 ")
        yield client


def test_running_requests_finish_when_the_server_stops(server: Supervisor, image: bytes) -> None:
    server.wait_until_ready(READY_WITHIN_S)
    statuses: list[int] = []
    is_stopping = threading.Event()

    def send_requests() -> None:
        while not is_stopping.is_set():
            statuses.append(predict(server, image).status_code)

    clients = [threading.Thread(target=send_requests) for _ in range(8)]
    for client in clients:
        client.start()
    wait_until(lambda: is_busy(server))
    with begun_request(server, image) as last:
        is_stopping.set()
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        wait_until(lambda: get(server).status_code == 503)
        last.sendall(image)
        assert last.recv(4096).startswith(b"HTTP/1.1 200 ")
    stopping.join()
    for client in clients:
        client.join()
    assert server.process.returncode == 0
    assert set(statuses) <= {200, 503}
    assert 200 in statuses


def test_a_second_signal_does_not_cut_off_the_requests_in_progress(
    server: Supervisor, image: bytes
) -> None:
    # systemd signals all processes of a service, and the supervisor passes the signal on.
    server.wait_until_ready(READY_WITHIN_S)
    with begun_request(server, image) as client:
        for _ in range(2):
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: get(server).status_code == 503)
        client.sendall(image)
        assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert server.process.wait(TIMEOUT_S) == 0


def test_a_supervisor_that_fails_is_an_error(
    server: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ValueError("broken")

    server.wait_until_ready(READY_WITHIN_S)
    monkeypatch.setattr(server, "_spawn", fail)
    server.process.kill()
    with pytest.raises(ServerError, match=r"the supervisor has failed: broken"):
        server.wait_for_exit()


def test_a_model_that_cannot_be_loaded_is_an_error(shapes_mar: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    with zipfile.ZipFile(shapes_mar) as archive:
        archive.extractall(folder)
    (folder / "model-config.yaml").write_text("handler: {images_per_forward: 0}")
    with (
        running_server([folder], ANY_PORT) as server,
        pytest.raises(ServerError, match=r"model broken cannot be loaded: .*images_per_forward"),
    ):
        server.wait_until_ready(READY_WITHIN_S)


def test_two_models_with_one_name_are_an_error(shapes_mar: Path) -> None:
    with (
        pytest.raises(CommandError, match="have the name 'shapes'"),
        running_server([shapes_mar, shapes_mar], ANY_PORT),
    ):
        pass


def test_a_port_in_use_is_an_error(shapes_mar: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(CommandError, match=r"port \d+ cannot be used.*--port"),
        running_server([shapes_mar], ServerConfig(folders={}, port=other.getsockname()[1])),
    ):
        pass


def test_a_long_forward_pass_ends_the_process() -> None:
    command = [sys.executable, "-c", WATCHED]
    hung = subprocess.run([*command, "0.4", "600"], capture_output=True, text=True)
    assert hung.returncode == UNUSABLE
    assert "a forward pass has not ended after" in hung.stderr
    assert 'File "<string>", line 6' in hung.stderr
    good = subprocess.run([*command, "600", "1"], capture_output=True, text=True)
    assert (good.returncode, good.stderr) == (0, "")


def test_the_supervisor_imports_neither_torch_nor_the_server() -> None:
    code = "import sys, d2serve.cli.serve_asgi; print({'torch', 'uvicorn'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


class Command:
    """A running `d2serve serve --server asgi`."""

    def __init__(self, log: Path, *arguments: str | Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *PROGRAM, *map(str, arguments), "--server", "asgi"],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def wait_until_ready(self) -> None:
        wait_until(lambda: "is served at" in self.text, READY_WITHIN_S)

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")

    @property
    def child(self) -> psutil.Process:
        [child] = psutil.Process(self.process.pid).children()
        return child


@pytest.fixture
def command(shapes_mar: Path, tmp_path: Path) -> Iterator[Command]:
    running = Command(tmp_path / "log", shapes_mar, "--port", "0", "--address", ANY)
    yield running
    running.process.kill()
    running.process.wait()


def test_the_command_shows_the_url_and_the_token_and_stops(command: Command, image: bytes) -> None:
    """tests/cli/test_run.py has the other signals, which all commands share."""
    command.wait_until_ready()
    wait_until(lambda: "--certificate and --key enable HTTPS" in command.text)
    url = re.findall(r"served at (http://127.0.0.1:\d+)/invocations; try: curl -H", command.text)[0]
    token_file = Path(re.findall(r"TOKEN is the content of (.*)", command.text)[0])
    assert token_file.stat().st_mode & 0o777 == 0o600
    assert httpx.get(f"{url}/ping", timeout=TIMEOUT_S).status_code == 200
    assert httpx.post(f"{url}/invocations", content=image, timeout=TIMEOUT_S).status_code == 401
    headers = {"Authorization": f"Bearer {token_file.read_text().strip()}"}
    how: dict[str, Any] = {"headers": headers, "timeout": TIMEOUT_S}
    assert httpx.post(f"{url}/invocations", content=image, **how).status_code == 200
    command.process.terminate()
    assert command.process.wait(TIMEOUT_S) == 0
    assert command.text.endswith("stopped\n")
    assert not token_file.exists()
    # The token is not in the environment of processes that the server might start.
    assert headers["Authorization"] not in command.text


def test_the_server_ends_with_its_supervisor(command: Command) -> None:
    command.wait_until_ready()
    child = command.child
    command.process.kill()
    assert child.wait(TIMEOUT_S) in (0, None)


def test_a_chosen_token_is_read_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-the-file\n")
    environment = {"D2SERVE_SERVER_TOKEN": "from-the-environment"}
    assert given_token(file, environment) == "from-the-file"
    assert given_token(None, environment) == "from-the-environment"
    assert given_token(None, {}) == ""
    for unusable in ("short", "with a space", "\xe9" * 20, ""):
        file.write_text(unusable)
        with pytest.raises(CommandError, match=r"--token-file .* is not a token"):
            given_token(file, {})
    with pytest.raises(CommandError, match="cannot be read"):
        given_token(tmp_path / "absent", {})
