"""Random changes of a table, all of them remembered, and the check that an index tells the same as the table.

workload = Workload(Table(dynamodb_local.url, "orders"), seed=7, keys=2000, writers=4)
workload.begin_with(300)              # items that are there before anything is replicated
workload.run(10_000, seconds=20)      # puts, updates, deletes, batches, transactions, and changes that change nothing
print(workload.difference(documents)) # None once every document is its item
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import threading
import time
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

Value = dict[str, Any]
"""`{"S": "text"}`, as the API spells it."""
Item = dict[str, Value]

KEY_TYPES: tuple[tuple[str, ...], ...] = (("N",), ("S",), ("S", "N"), ("N", "S"), ("B",))
"""Types of the partition key and the sort key."""
NAMES = ("id", "at")
HOT_KEYS = 8
"""Keys of each writer that a fifth of all changes goes to."""
BATCH_MAX = 25
SHOWN_MAX = 4
HISTORY_SHOWN_MAX = 12
RETRIES_MAX = 20
_ALPHABET = 'abcdefghij 0123456789"\\/\n\t\x01{}üß漢😀|\u2028'
_WILD_NUMBERS = (
    "12345678901234567890123456789012345678",
    "0.00000000000000000000000000001",
    "-1E-120",
    "9.9E+120",
    "39370",
    "-0.5",
    "1.50",
    "9007199254740993",
)


class Table:
    """One table by plain HTTP: what a client library costs would slow the writers down."""

    def __init__(self, url: str, name: str, key_types: tuple[str, ...] = ("N",)) -> None:
        self.name = name
        self.key_types = key_types
        self._address = urlsplit(url)
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """One request of the API. Raises `RuntimeError` when it is refused."""
        body = json.dumps(parameters)
        credential = "123456789012/20260101/us-east-1/dynamodb/aws4_request"
        headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": f"DynamoDB_20120810.{operation}",
            "X-Amz-Date": "20260101T000000Z",
            "Authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=none",
        }
        for attempt in range(RETRIES_MAX):
            connection = getattr(self._local, "connection", None)
            if connection is None:
                connection = http.client.HTTPConnection(self._address.hostname or "", self._address.port, timeout=60)
                self._connections.append(connection)
                self._local.connection = connection
            try:
                connection.request("POST", "/", body, headers)
                reply = connection.getresponse()
                text = reply.read()
            except (OSError, http.client.HTTPException):
                connection.close()  # it opens anew by itself
                continue
            if reply.status == 200:
                answer: dict[str, Any] = json.loads(text)
                return answer
            if reply.status < 500 and b"TransactionConflict" not in text:
                raise RuntimeError(f"{operation} was answered {reply.status}: {text.decode(errors='replace')}")
            time.sleep(0.05 * (attempt + 1))
        raise RuntimeError(f"{operation} failed {RETRIES_MAX} times")

    def close(self) -> None:
        """End the connections of all threads."""
        for connection in self._connections:
            connection.close()

    def make(self) -> None:
        keys = list(zip(NAMES, self.key_types, strict=False))
        self.call(
            "CreateTable",
            TableName=self.name,
            KeySchema=[
                {"AttributeName": name, "KeyType": kind}
                for (name, _), kind in zip(keys, ("HASH", "RANGE"), strict=False)
            ],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": kind} for name, kind in keys],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )

    def remove(self) -> None:
        self.call("DeleteTable", TableName=self.name)

    def items(self) -> dict[str, Item]:
        """All items by the text of their key."""
        found: dict[str, Item] = {}
        page: dict[str, Any] = {}
        while True:
            reply = self.call("Scan", TableName=self.name, ConsistentRead=True, **page)
            found |= {self.text(item): item for item in reply["Items"]}
            if "LastEvaluatedKey" not in reply:
                return found
            page = {"ExclusiveStartKey": reply["LastEvaluatedKey"]}

    def key(self, item: Item) -> Item:
        return {name: item[name] for name in NAMES[: len(self.key_types)]}

    def text(self, item: Item) -> str:
        """The key of an item as the id of its document."""
        return "|".join(next(iter(value.values())) for value in self.key(item).values())


@dataclass(slots=True)
class Fate:
    """One key: what it holds by now, and how that came about."""

    key: Item
    item: Item | None = None
    recorded: bool = False
    """The stream tells of a change that counts."""
    history: list[tuple[float, str, int | None]] = field(default_factory=list)
    """Seconds since the start, operation, `n` of the item."""


class Workload:
    """Changes of a table by several writers; each has keys of its own, so that the order of their changes is known."""

    def __init__(self, table: Table, *, seed: int, keys: int, writers: int = 4) -> None:
        self.table = table
        self._seed = seed
        self._writers = writers
        self._random = random.Random(seed)
        self._fates = [Fate(self._key(number)) for number in range(keys)]
        self._by_id = {table.text(fate.key): fate for fate in self._fates}
        assert len(self._by_id) == keys, "keys that look alike would share a document"
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._number = 0
        self._counts = True
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self.done = 0
        """Changes made by `run`."""

    def begin_with(self, count: int) -> None:
        """Items that are older than what is replicated: they count once they change."""
        self._counts = False
        chance = random.Random(self._seed + 1)
        for start in range(0, count, BATCH_MAX):
            self._batch(chance, self._fates[start : min(start + BATCH_MAX, count)], puts_only=True)
        self._counts = True

    def run(self, changes: int, *, seconds: float) -> None:
        """Make so many changes, in bursts that take about that long together. Raises what a writer raised."""
        shares = [changes // self._writers + (n < changes % self._writers) for n in range(self._writers)]
        threads = [
            threading.Thread(target=self._write, args=(number, share, seconds), daemon=True, name=f"writer-{number}")
            for number, share in enumerate(shares)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def stop(self) -> None:
        self._stop.set()

    # the check

    def difference(self, documents: Mapping[str, tuple[int, dict[str, Any]]], *, shown: int = SHOWN_MAX) -> str | None:
        """What is not in `documents` (version and source by id) as it is in the table; None when all is."""
        items = self.table.items()
        wrong = [id_ for id_, fate in self._by_id.items() if fate.item is None and id_ in items]
        wrong += [id_ for id_, fate in self._by_id.items() if fate.item is not None and id_ not in items]
        assert not wrong, f"the table does not hold what was written to it: {wrong[:shown]}"
        wanted = {id_: item for id_, item in items.items() if self._by_id[id_].recorded}
        missing = [id_ for id_ in wanted if id_ not in documents]
        surplus = [id_ for id_ in documents if id_ not in wanted]
        other = [id_ for id_ in wanted if id_ in documents and not same({"M": wanted[id_]}, documents[id_][1])]
        if not (missing or surplus or other):
            return None
        lines = [f"{len(missing)} missing, {len(surplus)} surplus, {len(other)} other of {len(wanted)} documents"]
        for what, ids in (("missing", missing), ("surplus", surplus), ("other", other)):
            for id_ in ids[:shown]:
                lines += self._tell(what, id_, items.get(id_), documents.get(id_))
        return "\n".join(lines)

    def _tell(self, what: str, id_: str, item: Item | None, document: Any) -> Iterable[str]:
        yield f"{what}: {id_!r}"
        yield f"  item      {_short(item)}"
        yield f"  document  {'none' if document is None else f'version {document[0]} {_short(document[1])}'}"
        fate = self._by_id.get(id_)
        history = fate.history if fate else []
        yield f"  {len(history)} changes, the last ones:"
        for seconds, operation, number in history[-HISTORY_SHOWN_MAX:]:
            yield f"    {seconds:8.2f} s  {operation}  n={number}"

    # writers

    def _write(self, number: int, changes: int, seconds: float) -> None:
        chance = random.Random(self._seed * 1000 + number)
        own = self._fates[number :: self._writers]
        began, left = time.monotonic(), changes
        try:
            while left > 0 and not self._stop.is_set():
                burst = min(left, chance.choice((1, 5, 20, 100, 300)))
                end = left - burst
                while left > end:
                    left -= self._change(chance, own, left)
                due = began + seconds * (changes - left) / changes
                self._stop.wait(max(0.0, due - time.monotonic()) * chance.uniform(0.5, 1.0))
        except BaseException as error:
            self._failures.append(error)
            self._stop.set()

    def _change(self, chance: random.Random, own: list[Fate], most: int) -> int:
        """One request; returns how many changes it made."""
        fate = chance.choice(own[:HOT_KEYS] if chance.random() < 0.2 else own)
        kind = chance.random()
        if kind < 0.25:
            self._put(fate, self._item(chance, fate))
        elif kind < 0.30:
            self._put(fate, fate.item or self._item(chance, fate))
        elif kind < 0.60:
            self._update(chance, fate)
        elif kind < 0.75:
            self._delete(fate)
        else:
            several = chance.sample(own, min(most, len(own), chance.randint(2, BATCH_MAX)))
            if kind < 0.90:
                self._batch(chance, several)
            else:
                several = several[:10]
                self._transact(chance, several)
            with self._lock:
                self.done += len(several)
            return len(several)
        with self._lock:
            self.done += 1
        return 1

    def _put(self, fate: Fate, item: Item) -> None:
        self.table.call("PutItem", TableName=self.table.name, Item=item)
        self._note(fate, "put", item)

    def _delete(self, fate: Fate) -> None:
        self.table.call("DeleteItem", TableName=self.table.name, Key=fate.key)
        self._note(fate, "delete", None)

    def _update(self, chance: random.Random, fate: Fate) -> None:
        number = {"N": str(self._next())}
        title = {"S": _text(chance, 20)}
        update: dict[str, Any] = {
            "UpdateExpression": "SET #n = :n, #title = :title REMOVE tags ADD hits :one",
            "ExpressionAttributeNames": {"#n": "n", "#title": "title"},
            "ExpressionAttributeValues": {":n": number, ":title": title, ":one": {"N": "1"}},
        }
        self.table.call("UpdateItem", TableName=self.table.name, Key=fate.key, **update)
        item = deepcopy(fate.item or fate.key)
        item |= {"n": number, "title": title, "hits": {"N": str(int(item.get("hits", {"N": "0"})["N"]) + 1)}}
        item.pop("tags", None)
        self._note(fate, "update", item)

    def _batch(self, chance: random.Random, fates: list[Fate], *, puts_only: bool = False) -> None:
        made = [(fate, self._item(chance, fate) if puts_only or chance.random() < 0.75 else None) for fate in fates]
        requests = [
            {"DeleteRequest": {"Key": fate.key}} if item is None else {"PutRequest": {"Item": item}}
            for fate, item in made
        ]
        while requests:
            reply = self.table.call("BatchWriteItem", RequestItems={self.table.name: requests})
            requests = reply.get("UnprocessedItems", {}).get(self.table.name, [])
        for fate, item in made:
            self._note(fate, "batch put" if item else "batch delete", item)

    def _transact(self, chance: random.Random, fates: list[Fate]) -> None:
        made = [(fate, self._item(chance, fate) if chance.random() < 0.75 else None) for fate in fates]
        name = self.table.name
        actions = [
            {"Delete": {"TableName": name, "Key": fate.key}}
            if item is None
            else {"Put": {"TableName": name, "Item": item}}
            for fate, item in made
        ]
        self.table.call("TransactWriteItems", TransactItems=actions)
        for fate, item in made:
            self._note(fate, "transact put" if item else "transact delete", item)

    def _note(self, fate: Fate, operation: str, item: Item | None) -> None:
        changed = item != fate.item
        if changed and self._counts:
            fate.recorded = True
        number = int(item["n"]["N"]) if item and "n" in item else None
        suffix = "" if changed else " (changes nothing)"
        fate.history.append((time.monotonic() - self._started, operation + suffix, number))
        fate.item = item

    def _next(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    # items

    def _key(self, number: int) -> Item:
        values = {
            "N": str(number),
            "S": f"k-{number:05} ü/'%",
            "B": base64.b64encode(f"{number:05}\0".encode()).decode(),
        }
        kinds = self.table.key_types
        if len(kinds) == 2:  # many items of one partition
            values = {"N": str(number % 7), "S": f"p{number % 7}"}
            sort = {"N": f"{number}", "S": f"s {number}"}
            return {NAMES[0]: {kinds[0]: values[kinds[0]]}, NAMES[1]: {kinds[1]: sort[kinds[1]]}}
        return {NAMES[0]: {kinds[0]: values[kinds[0]]}}

    def _item(self, chance: random.Random, fate: Fate) -> Item:
        item: Item = {**fate.key, "n": {"N": str(self._next())}, "title": {"S": _text(chance, 40)}}
        if chance.random() < 0.5:
            item["tags"] = {"SS": sorted({f"tag {chance.randrange(9)}" for _ in range(3)})}
        if chance.random() < 0.3:
            item["sizes"] = {"NS": sorted({str(chance.randrange(-50, 50)) for _ in range(3)})}
        if chance.random() < 0.3:
            item["live"] = {"BOOL": chance.random() < 0.5}
        if chance.random() < 0.2:
            item["none"] = {"NULL": True}
        if chance.random() < 0.4:
            item["any"] = {"M": {_text(chance, 5) or "a": _wild(chance, 3) for _ in range(chance.randrange(4))}}
        if chance.random() < 0.01:
            item["long"] = {"S": _text(chance, 100) * 300}
        return item


def same(value: Value, found: Any) -> bool:
    """Whether a decoded JSON value, its numbers as `Decimal`, says what the attribute says."""
    ((kind, content),) = value.items()
    match kind:
        case "N":
            return isinstance(found, Decimal) and found == Decimal(content)
        case "NULL":
            return found is None
        case "BOOL":
            return found is content
        case "S" | "B":
            return bool(found == content)
        case "NS":
            return isinstance(found, list) and sorted(found) == sorted(map(Decimal, content))
        case "SS" | "BS":
            return isinstance(found, list) and sorted(found) == sorted(content)
        case "L":
            return isinstance(found, list) and len(found) == len(content) and all(map(same, content, found))
        case "M":
            return (
                isinstance(found, dict)
                and found.keys() == content.keys()
                and all(same(content[name], found[name]) for name in content)
            )
        case _:
            raise AssertionError(f"no attribute: {value}")


def _text(chance: random.Random, length: int) -> str:
    return "".join(chance.choices(_ALPHABET, k=chance.randrange(length + 1)))


def _wild(chance: random.Random, depth: int) -> Value:
    """A value that no mapping has to understand."""
    kind = chance.randrange(8 if depth else 6)
    match kind:
        case 0:
            return {"N": chance.choice(_WILD_NUMBERS)}
        case 1:
            return {"S": _text(chance, 30)}
        case 2:
            return {"B": base64.b64encode(chance.randbytes(chance.randrange(20))).decode()}
        case 3:
            return {"BS": sorted({base64.b64encode(chance.randbytes(3)).decode() for _ in range(2)})}
        case 4:
            return {"BOOL": chance.random() < 0.5}
        case 5:
            return {"NULL": True}
        case 6:
            return {"L": [_wild(chance, depth - 1) for _ in range(chance.randrange(4))]}
        case _:
            return {"M": {f"m/{n}.x y": _wild(chance, depth - 1) for n in range(chance.randrange(3))}}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 600 else f"{text[:600]}… ({len(text)} characters)"
