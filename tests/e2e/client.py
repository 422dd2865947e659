"""Sends events to an `http` source as log shippers do: connections that stay open, and again after a refusal."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Sequence
from typing import Any, Self


class Client:
    """One connection. After an error the next call opens a new one."""

    def __init__(self, port: int, path: str = "/log/ingest", *, timeout_s: float = 60.0) -> None:
        self._path = path
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)

    def post(self, events: Sequence[Any]) -> tuple[int, str]:
        """Status and body of the answer. Raises `OSError` or `HTTPException` when there is none."""
        try:
            self._connection.request("POST", self._path, json.dumps(events))
            reply = self._connection.getresponse()
            return reply.status, reply.read().decode()
        except BaseException:
            self._connection.close()
            raise

    def deliver(self, events: Sequence[Any], *, timeout_s: float = 60.0) -> None:
        """Send until it is accepted."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                answer = self.post(events)
            except (OSError, http.client.HTTPException) as error:
                answer = 0, repr(error)
            if answer[0] == 200:
                return
            assert answer[0] in (0, 408, 429, 503), answer
            assert time.monotonic() < deadline, f"not accepted within {timeout_s:g} s: {answer}"
            time.sleep(0.05)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Shippers:
    """Threads that deliver events over a connection each, in requests of `size` events."""

    def __init__(
        self,
        port: int,
        events: Sequence[Any],
        *,
        path: str = "/log/ingest",
        count: int = 4,
        size: int = 100,
        timeout_s: float = 60.0,
    ) -> None:
        self._errors: list[BaseException] = []
        self._timeout_s = timeout_s
        chunks = [events[start : start + size] for start in range(0, len(events), size)]
        self._threads = [
            threading.Thread(target=self._ship, args=(port, path, chunks[number::count]), daemon=True)
            for number in range(count)
        ]

    def _ship(self, port: int, path: str, chunks: Sequence[Sequence[Any]]) -> None:
        try:
            with Client(port, path) as client:
                for chunk in chunks:
                    client.deliver(chunk, timeout_s=self._timeout_s)
        except BaseException as error:
            self._errors.append(error)

    def start(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def join(self) -> None:
        """Wait until everything was accepted; raises what a thread ended with."""
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]
