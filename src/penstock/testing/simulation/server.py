"""The other side of the sinks: a server that carries out bulk requests and goes wrong in all the known ways."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from penstock.core.errors import Permanent, Transient, Unreachable
from penstock.lib.http_client import Body, Reply
from penstock.runtime.dead_letters import DeadLetter
from penstock.sdk import Batch
from penstock.testing.opensearch import FakeOpenSearch, Request
from penstock.testing.simulation.nature import Life, Nature
from penstock.testing.simulation.processors import SimulatedError
from penstock.testing.simulation.scenario import percent_of

CLIENT_TIMEOUT_S = 60.0
BUSY = (429, 429, 503)
AWAY = (429, 500, 502, 503, 504, 403)
Operation = tuple[str, dict[str, Any], Any]


@dataclass(slots=True)
class _Late:
    """A request that is carried out after its client has given up, perhaps after the client has died."""

    due_s: float
    body: bytes


class ModelServer:
    """Documents and versions as OpenSearch keeps them; which requests fail is drawn from the chance of the world."""

    def __init__(self, world: Nature) -> None:
        self._world = world
        self._late: list[_Late] = []
        self.store = FakeOpenSearch(auto_create=False)
        everything = 10**12
        for status in sorted({*BUSY}):
            self.store.fail_items(self._busy(status), status, "rejected_execution_exception", "busy", times=everything)
        self.store.fail_items(self._poisoned, 400, "mapper_parsing_exception", "poison", times=everything)

    def client(self, life: Life) -> ModelClient:
        """The way of one process to the server."""
        return ModelClient(self._world, life, self)

    def versions(self) -> dict[str, dict[str, int]]:
        """The version of each document by index and id, as the events gave it."""
        found: dict[str, dict[str, int]] = {}
        for name, index in self.store.indexes.items():
            found[name] = dict(index.deleted)
            found[name] |= {id_: document.source["version"] for id_, document in index.documents.items()}
        return found

    def carry_out(self, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
        """Do what a request says, now."""
        status, reply = self.store.answer("POST", path, query, body)
        if status != 200:
            return status, reply
        ledger = self._world.ledger
        for (action, target, document), item in zip(operations_of(body), reply["items"], strict=True):
            answer = item[action]
            code = answer["status"]
            name = target["_index"]
            if code < 300 or code == 409 or (code == 404 and action == "delete"):
                ledger.settle(name, tokens_of(target, document))
                if document is not None:
                    ledger.carried_out(name, target.get("_id"), document)
        return status, reply

    def later(self, due_s: float, body: bytes) -> None:
        """The request is still on its way."""
        self._late.append(_Late(due_s, body))

    def catch_up(self, now_s: float) -> None:
        """Carry out what has arrived by now."""
        due = [late for late in self._late if late.due_s <= now_s]
        self._late = [late for late in self._late if late.due_s > now_s]
        for late in sorted(due, key=lambda one: one.due_s):
            self.carry_out("/_bulk", {}, late.body)

    def _busy(self, status: int) -> Any:
        share = self._world.faults.item_busy / len(set(BUSY))

        def matches(_action: str, _target: dict[str, Any], _document: Any) -> bool:
            return not self._world.healed and self._world.chance.random() < share

        return matches

    def _poisoned(self, _action: str, target: dict[str, Any], document: Any) -> bool:
        return any(percent_of("poison", token) < self._world.faults.poison for token in tokens_of(target, document))


class ModelClient:
    """Stands for the HTTP client of a sink."""

    def __init__(self, world: Nature, life: Life, server: ModelServer) -> None:
        self._world = world
        self._life = life
        self._server = server

    async def close(self) -> None:
        """There is no connection."""

    async def request(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> Reply:
        """Raises `Unreachable` as the real one does."""
        world = self._world
        if body is not None and not isinstance(body, bytes):
            body = b"".join(body)
        path, _, query = path.partition("?")
        if path != "/_bulk":
            return await self._set_up(method, path, dict(parse_qsl(query)), body or b"")
        assert body is not None, "a bulk request has a body"
        operations = operations_of(body)
        keys = self._claim(operations)
        try:
            await world.latency()
            self._server.catch_up(world.now_s())
            return await self._bulk(body, operations)
        finally:
            self._life.in_flight -= keys

    async def _set_up(self, method: str, path: str, query: dict[str, str], body: bytes) -> Reply:
        await self._world.latency()
        if self._world.happens("whole"):
            return _reply(503, {"error": "not yet"})
        if self._world.within("server_away"):
            raise Unreachable("http://model:9200 cannot be reached")
        return _reply(*self._server.store.answer(method, path, query, body))

    def _claim(self, operations: list[Operation]) -> set[tuple[str, str]]:
        """Two operations on one document are never on their way together, not even in one request."""
        ledger, ordered = self._world.ledger, self._world.scenario.ordered
        keys: set[tuple[str, str]] = set()
        for action, target, document in operations:
            if "_id" not in target:
                continue
            key = target["_index"], target["_id"]
            if key in keys or key in self._life.in_flight:
                ledger.violate(f"two operations on {key[0]}/{key[1]} are in flight together")
            keys.add(key)
            if ordered and action == "index" and self._world.in_order(document):
                ledger.check_order(*key, document["round"], document["version"])
        self._life.in_flight |= keys
        return keys

    async def _bulk(self, body: bytes, operations: list[Operation]) -> Reply:
        world, chance = self._world, self._world.chance
        if world.within("server_away"):
            raise Unreachable("http://model:9200 cannot be reached")
        if world.happens("hang"):
            return await self._hang(body)
        if world.happens("slow"):
            await asyncio.sleep(chance.uniform(0, 20))
        if len(body) > world.faults.request_bytes_max:
            self._will_refuse_alone(operations, "Request Entity Too Large")
            return _reply(413, {"error": "Request Entity Too Large"})
        if any(percent_of("venom", token) < world.faults.venom for _, t, d in operations for token in tokens_of(t, d)):
            self._will_refuse_alone(operations, "Malformed content")
            return _reply(400, {"error": {"type": "x_content_parse_exception", "reason": "Malformed content"}})
        if world.happens("whole"):
            status = chance.choice(AWAY)
            self._note_retryable(operations)
            headers = {"Retry-After": str(chance.randrange(5))} if chance.random() < 0.2 else None
            return _reply(status, {"error": {"type": "unavailable", "reason": f"answers {status}"}}, headers)
        if world.happens("index_deleted"):
            name = operations[0][1]["_index"]
            self._server.store.drop(name)
            world.ledger.deleted.add(name)
        cut = chance.randrange(3) if world.happens("cut") else None
        if cut == 0:
            raise Unreachable("http://model:9200 broke off before the request was carried out")
        status, reply = self._server.carry_out("/_bulk", {}, body)
        await world.latency()
        if cut == 1:
            raise Unreachable("http://model:9200 broke off before its answer")
        answer = _reply(status, reply)
        if cut == 2:
            return Reply(status, answer.headers, answer.body[: chance.randrange(len(answer.body))])
        self._note_refused(operations, reply)
        again = [
            operation
            for operation, item in zip(operations, reply.get("items", ()), strict=False)
            if item[operation[0]]["status"] in BUSY
        ]
        self._note_retryable(again)
        return answer

    async def _hang(self, body: bytes) -> Reply:
        """The client gives up; the request gets lost, or is carried out before or after that."""
        world, chance = self._world, self._world.chance
        fate = chance.randrange(3)
        if fate == 1:
            self._server.carry_out("/_bulk", {}, body)
        elif fate == 2 and world.scenario.ids != "plain":
            self._server.later(world.now_s() + CLIENT_TIMEOUT_S + chance.uniform(0, 60), body)
        await asyncio.sleep(CLIENT_TIMEOUT_S)
        raise Unreachable(f"http://model:9200 did not answer within {CLIENT_TIMEOUT_S:g} s")

    def _will_refuse_alone(self, operations: list[Operation], reason: str) -> None:
        if len(operations) == 1:
            _, target, document = operations[0]
            for token in tokens_of(target, document):
                self._world.ledger.will_refuse(target["_index"], token, reason)

    def _note_refused(self, operations: list[Operation], reply: Any) -> None:
        for (action, target, document), item in zip(operations, reply.get("items", ()), strict=False):
            if item[action]["status"] == 400:
                for token in tokens_of(target, document):
                    self._world.ledger.will_refuse(target["_index"], token, item[action]["error"]["reason"])

    def _note_retryable(self, operations: list[Operation]) -> None:
        for action, target, document in operations:
            self._world.ledger.forget_reason(target["_index"], tokens_of(target, document))
            if action != "delete" and len(document["tokens"]) == 1:
                for token in document["tokens"]:
                    self._world.ledger.retryable(target["_index"], token, document["round"], self._life.number)


class ModelWriteSink:
    """A sink that takes whole batches."""

    def __init__(self, world: Nature, name: str) -> None:
        self._world = world
        self._name = name

    async def start(self) -> None:
        """It is always ready."""

    async def stop(self) -> None:
        """There is nothing to close."""

    async def write(self, batch: Batch) -> None:
        await self._world.latency()
        if self._world.happens("whole") or self._world.within("server_away"):
            raise Transient("the disk is busy")
        if self._world.happens("cut"):
            raise self._world.chance.choice((Permanent("the disk is read-only"), SimulatedError("a bug in the sink")))
        for body in batch.bodies:
            self._world.ledger.settle(self._name, body["tokens"])


class ModelDeadLetters:
    """A dead-letter queue that is away now and then."""

    def __init__(self, world: Nature) -> None:
        self._world = world

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        world = self._world
        await world.latency()
        if world.happens("letters") or world.within("letters_away"):
            for letter in letters:
                world.ledger.letters_lost.update(world.ledger.tokens_of(letter.failed_data))
            raise world.chance.choice((OSError("no space left"), Transient("slow down"), Permanent("access denied")))
        world.ledger.buried(letters)

    async def close(self) -> None:
        """There is nothing to close."""


def operations_of(body: bytes) -> list[Operation]:
    """Action, target and document of each operation of a request."""
    return Request("POST", "/_bulk", {}, {}, body).operations


def tokens_of(target: dict[str, Any], document: Any) -> list[str]:
    """Which events an operation is for. A delete has no document: its version and id tell."""
    if document is not None:
        return list(document["tokens"])
    _, _, path = target["_id"].partition("~")
    number = int(target["version"]) - 1
    return [f"{number}/{path}" if path else str(number)]


def _reply(status: int, document: Any, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, headers or {}, json.dumps(document).encode())
