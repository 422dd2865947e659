"""The unit's end: an engine that obeys a supervisor and tells it how things are."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from typing import Any

from penstock.runtime.engine import Engine
from penstock.runtime.units.channel import Channel, ChannelClosed, Message
from penstock.runtime.units.meters import snapshot

log = logging.getLogger(__name__)

PORT_S = 30.0
"""Longest wait for a port."""


class Unit:
    """Speaks with the supervisor. `run` runs an engine; the engine's ports come from `share_port`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._channel = Channel(reader, writer, answer=self._answer, hear=self._hear)
        self._engine: Engine | None = None
        self._stop_asked = False
        self._by_signal = False
        self._main: asyncio.Task[Any] | None = None

    async def share_port(self, pipeline: str, host: str, port: int) -> int:
        """The port for all units. Raises OSError when somebody else has it."""
        try:
            reply = await self._channel.ask({"port": [pipeline, host, port]}, PORT_S)
        except (ChannelClosed, TimeoutError) as error:
            raise OSError(0, "the supervisor does not answer") from error
        if "port" not in reply:
            raise OSError(reply["errno"], reply["reason"])
        return int(reply["port"])

    async def run(self, engine: Engine) -> int:
        """Run the engine to its end. Raises what it raises, and `CancelledError` when all is to end at once."""
        self._engine = engine
        self._main = asyncio.current_task()
        serving = asyncio.create_task(self._serve())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stop_by_signal)
        try:
            self._channel.tell({"running": os.getpid()})
            if self._stop_asked:
                engine.stop()
            code = await engine.run()
            by_signal = self._by_signal and not self._stop_asked
            self._channel.tell({"ended": {"code": code, "by_signal": by_signal}, "state": self._state(engine)})
            await self._channel.flush()
            return code
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    async def _serve(self) -> None:
        await self._channel.serve()
        if self._engine is not None and not self._stop_asked:
            log.warning("The supervisor is gone: draining what is under way")
            self._engine.stop()

    async def _answer(self, question: Message) -> Message:
        assert self._engine is not None, "it is asked once it runs"
        return self._state(self._engine)

    def _state(self, engine: Engine) -> Message:
        return {**engine.status(), "not_started": engine.not_started(), "meters": snapshot(engine.registry)}

    def _hear(self, news: Message) -> None:
        self._stop_asked = True
        if news["stop"] == "at once":
            log.warning("Stopped before everything was drained")
            if self._main is not None:
                self._main.cancel()
        elif self._engine is not None:
            self._engine.stop()

    def _stop_by_signal(self) -> None:
        """Those who stop a service often signal each of its processes; the supervisor's word comes as well."""
        if not self._stop_asked:
            self._by_signal = True
        if self._engine is not None:
            self._engine.stop()
