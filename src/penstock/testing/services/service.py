"""A server as a child process: free port, log file, health check, and an end that is certain."""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self, TypeVar

from penstock.core.errors import PenstockError
from penstock.testing.services.cache import cache_folder

_T = TypeVar("_T")

_LOGS_KEPT = 20
"""Log files kept for each service, the newest ones."""
_START_ATTEMPTS = 3
"""A free port can be taken by somebody else before the server binds it."""
_tools: set[subprocess.Popen[bytes]] = set()
_PORT_TAKEN = ("address already in use", "bindexception", "failed to bind")


class ServiceUnavailable(PenstockError):
    """The service cannot run on this machine; the message says what is missing."""


class ServiceFailed(PenstockError):
    """The service was started and did not become ready; the message ends with its log."""


@dataclass(frozen=True, slots=True)
class Command:
    """How to start a server."""

    argv: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of this process."""


class Service(ABC):
    """One server on a free loopback port, from `start` to `stop`.

    A server ends with the process that started it, however that one ends: each holds its standard input open and takes
    its end as the order to leave.
    """

    name: ClassVar[str]

    def __init__(self, *, progress: Callable[[str], None] | None = None, ready_timeout_s: float = 120.0) -> None:
        self.progress = progress or _to_stderr
        """Told in one line when something is fetched for the first time."""
        self.ready_timeout_s = ready_timeout_s
        self.port = 0
        self.log_path: Path | None = None
        """Standard output and error of the server."""
        self._process: subprocess.Popen[bytes] | None = None
        self._work: Path | None = None

    @abstractmethod
    def resolve(self) -> None:
        """Fetch what the server needs, once. Raises `ServiceUnavailable`."""

    @abstractmethod
    def command(self, port: int, work: Path) -> Command:
        """How to start the server on `port`, with the empty folder `work` for its data."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether the started server serves. May raise `OSError` while it does not listen yet."""

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`, without a slash at the end."""
        if self._process is None:
            raise ServiceFailed(f"{self.name} is not running")
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Process id of the server, none when it is not running."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Fetch what is missing, start the server and wait until it serves."""
        if self._process is not None:
            return self
        self.resolve()
        for attempts_left in reversed(range(_START_ATTEMPTS)):
            self._spawn()
            try:
                self._wait_until_ready()
            except ServiceFailed as failure:
                self.stop()
                if not attempts_left or not any(sign in str(failure).lower() for sign in _PORT_TAKEN):
                    raise
            except BaseException:
                self.stop()
                raise
            else:
                break
        return self

    def stop(self, *, grace_s: float = 10.0) -> None:
        """End the server and remove its data; the log stays. Does nothing when it is not running."""
        process, self._process = self._process, None
        if process is not None:
            if process.stdin:
                process.stdin.close()
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(grace_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._work is not None:
            shutil.rmtree(self._work, ignore_errors=True)
            self._work = None

    def kill(self) -> None:
        """Kill -9, as a power cut would: what the server had not written to its disk is gone."""
        assert self._process is not None, f"{self.name} is not running"
        self._process.kill()
        self._process.wait()

    def revive(self) -> None:
        """Start the killed server again, with the same port and data, and wait until it serves."""
        assert self._process is not None and self._work is not None and self.log_path is not None
        if self._process.stdin:
            self._process.stdin.close()
        self._launch(self._work, self.log_path)
        self._wait_until_ready()

    def log_tail(self, lines: int = 40, *, since_byte: int = 0) -> str:
        """The last lines that the server wrote, no earlier than `since_byte` of the log file."""
        if self.log_path is None or not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(since_byte, end - 256 * 1024))
            text = log.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def resolve_aside(self) -> None:
        """`resolve` in a thread; cancelling ends what is being fetched."""
        await _in_thread(self.resolve)

    async def __aenter__(self) -> Self:
        try:
            return await _in_thread(self.start)
        except asyncio.CancelledError:
            await asyncio.to_thread(self.stop)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _spawn(self) -> None:
        self.port = free_port()
        self._work = Path(tempfile.mkdtemp(prefix=f"penstock-{self.name}-"))
        self.log_path = _new_log(self.name, self.port)
        self._launch(self._work, self.log_path)

    def _launch(self, work: Path, log_path: Path) -> None:
        command = self.command(self.port, work)
        with log_path.open("ab") as log:
            try:
                self._process = subprocess.Popen(  # noqa: S603 (each service names its own program)
                    list(command.argv),
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, "TMPDIR": str(work), **command.environment},
                    cwd=work,
                    start_new_session=True,  # Ctrl-C goes to the tests, which then stop the server in order
                )
            except OSError as error:
                raise ServiceUnavailable(f"{self.name} cannot be executed: {error}") from error

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + self.ready_timeout_s
        pause_s = 0.02
        while True:
            if self._process.poll() is not None:
                raise ServiceFailed(f"{self.name} ended with code {self._process.returncode}\n{self.log_tail()}")
            try:
                if self.is_ready():
                    return
            except (OSError, http.client.HTTPException):
                pass  # not listening yet, or not answering in full
            if time.monotonic() > deadline:
                raise ServiceFailed(f"{self.name} did not answer within {self.ready_timeout_s:g} s\n{self.log_tail()}")
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.25)

    def _request(
        self, method: str, path: str, *, port: int | None = None, timeout_s: float = 10.0
    ) -> tuple[int, bytes]:
        """Status and body of one request, sent straight to the loopback port, whatever proxy the environment names."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=timeout_s)
        try:
            connection.request(method, path)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run_quietly(argv: Sequence[str], *, cwd: Path, what: str, timeout_s: float = 1800.0) -> None:
    """Run a tool that fetches or compiles; its last lines become the reason when it fails."""
    try:
        tool = subprocess.Popen(  # noqa: S603 (the callers choose the tool)
            list(argv),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # it can be ended with all that it started
        )
    except OSError as error:
        raise ServiceUnavailable(f"{what}: {error}") from error
    _tools.add(tool)
    try:
        said, _ = tool.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise ServiceUnavailable(f"{what} took longer than {timeout_s:g} s") from error
    finally:
        _tools.discard(tool)
        if tool.poll() is None:
            os.killpg(tool.pid, signal.SIGKILL)
            tool.communicate()
    if tool.returncode:
        lines = said.decode(errors="replace").strip().splitlines()
        raise ServiceUnavailable("\n  ".join([f"{what} failed with code {tool.returncode}:", *lines[-8:]]))


def interrupt_tools() -> None:
    """End the tools that are fetching now; whoever waits for them gets `ServiceUnavailable`."""
    for tool in list(_tools):
        if tool.poll() is None:
            os.killpg(tool.pid, signal.SIGTERM)


async def _in_thread(work: Callable[[], _T]) -> _T:
    working = asyncio.create_task(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        interrupt_tools()
        await asyncio.gather(working, return_exceptions=True)  # a thread cannot be cancelled
        raise


def _new_log(name: str, port: int) -> Path:
    folder = cache_folder() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    logs = sorted(folder.glob(f"{name}-*.log"), key=lambda log: log.stat().st_mtime)
    for old in logs[: max(0, len(logs) - _LOGS_KEPT + 1)]:
        old.unlink(missing_ok=True)
    return folder / f"{name}-{os.getpid()}-{port}.log"


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
