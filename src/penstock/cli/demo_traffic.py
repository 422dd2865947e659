"""The two ends of the demonstration: a table that is written to, an index that is looked at, and the time between."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn

import aiohttp
from aiobotocore.session import get_session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from penstock.core.errors import PenstockError

Item = dict[str, dict[str, Any]]
"""An item in the form of the DynamoDB API: attribute → {type: value}."""

LATENCIES_KEPT = 2_000
ITEMS_MAX = 500
"""Items that the index shows or is waited for; nothing new is put beyond that."""
_LOOK_INTERVAL_S = 0.02
_DOCUMENTS_MAX = 10_000
"""What one search may return; the table never holds as many items."""


class TrafficError(PenstockError):
    """One of the two ends does not answer as it should."""


class Table:
    """A DynamoDB table with a stream."""

    def __init__(self, client: Any, name: str) -> None:
        self.client = client
        self.name = name

    async def create(self) -> None:
        """Create the table with new and old images in its stream."""
        await self.client.create_table(
            TableName=self.name,
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )
        await self.client.get_waiter("table_exists").wait(
            TableName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 30}
        )

    async def put(self, item: Item) -> None:
        """Write a whole item."""
        with _told("DynamoDB"):
            await self.client.put_item(TableName=self.name, Item=item)

    async def delete(self, number: str) -> None:
        """Remove the item with that id."""
        with _told("DynamoDB"):
            await self.client.delete_item(TableName=self.name, Key={"id": {"N": number}})

    async def documents(self) -> dict[str, Any]:
        """Every item as the document it should become, by document id."""
        found: dict[str, Any] = {}
        with _told("DynamoDB"):
            async for page in self.client.get_paginator("scan").paginate(TableName=self.name, ConsistentRead=True):
                for item in page["Items"]:
                    found[item["id"]["N"]] = {name: plain(value) for name, value in item.items()}
        return found


class Index:
    """An OpenSearch index, asked as anybody with curl would."""

    def __init__(self, session: aiohttp.ClientSession, url: str, name: str) -> None:
        self._session = session
        self.url = url
        self.name = name

    async def serves(self) -> bool:
        """Whether the index was created and its primary shards can be read."""
        with _told("OpenSearch"):
            async with self._session.head(f"{self.url}/{self.name}") as reply:
                if reply.status != 200:
                    return False
        # The status alone does not tell: a new index is yellow before its primaries have started.
        health = await self._ask("GET", f"/_cluster/health/{self.name}")
        return bool(health["active_primary_shards"] and not health["initializing_shards"])

    async def look(self, ids: Sequence[str]) -> dict[str, int | None]:
        """The revision that the index has of each document, None when it has no such document."""
        found = await self._ask("POST", f"/{self.name}/_mget", {"ids": ids})
        return {doc["_id"]: _revision(doc) for doc in found["docs"]}

    async def count(self) -> int:
        """Documents that a search would find."""
        return int((await self._ask("GET", f"/{self.name}/_count"))["count"])

    async def documents(self) -> dict[str, Any]:
        """Every document, by id."""
        await self._ask("POST", f"/{self.name}/_refresh")
        hits = (await self._ask("POST", f"/{self.name}/_search", {"size": _DOCUMENTS_MAX}))["hits"]["hits"]
        return {hit["_id"]: hit["_source"] for hit in hits}

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        with _told("OpenSearch"):
            async with self._session.request(method, self.url + path, json=body) as reply:
                text = await reply.text()
        if reply.status != 200:
            raise TrafficError(f"{method} {path} was answered {reply.status}: {text[:300]}")
        return json.loads(text, parse_float=Decimal)


@dataclass(slots=True)
class _Write:
    revision: int | None
    """What the index must show; None: that the document is gone."""
    started_s: float


class Traffic:
    """Puts, changes and deletes items, and times each write until the index shows it.

    Only items that the index shows are changed or deleted, so that each write is seen on its own.
    """

    def __init__(self, table: Table, index: Index, *, seed: int = 1) -> None:
        self.table = table
        self.index = index
        self.puts = 0
        self.changes = 0
        self.deletes = 0
        self.arrived = 0
        """Writes that the index has shown."""
        self.latencies_s: deque[float] = deque(maxlen=LATENCIES_KEPT)
        """From the call that wrote an item to the moment the index showed it, the newest ones."""
        self.pending: dict[str, _Write] = {}
        self._shown: list[str] = []
        self._random = random.Random(seed)  # noqa: S311 (a choice of songs)
        self._number = 0
        self._revision = 0

    @property
    def written(self) -> int:
        """Puts, changes and deletes so far."""
        return self.puts + self.changes + self.deletes

    async def put(self) -> None:
        """Put a new item."""
        self._number += 1
        self.puts += 1
        await self._write(str(self._number))

    async def change(self) -> None:
        """Change some item that the index shows."""
        self.changes += 1
        await self._write(self._take_shown())

    async def delete(self) -> None:
        """Delete some item that the index shows."""
        number = self._take_shown()
        self.deletes += 1
        self.pending[number] = _Write(None, time.monotonic())
        await self.table.delete(number)

    async def any(self) -> None:
        """Put, change or delete; waits while the table is full of items that the index does not show yet."""
        while self._full and not self._shown:
            await asyncio.sleep(_LOOK_INTERVAL_S)
        choice = self._random.random()
        if not self._shown or (choice < 0.5 and not self._full):
            await self.put()
        elif choice < (0.5 if self._full else 0.9):
            await self.change()
        else:
            await self.delete()

    @property
    def _full(self) -> bool:
        return len(self._shown) + len(self.pending) >= ITEMS_MAX

    async def watch(self) -> NoReturn:
        """Look at the index until cancelled, and note what arrived."""
        while True:
            if self.pending:
                await self._look()
            await asyncio.sleep(_LOOK_INTERVAL_S)

    async def settle(self) -> None:
        """Wait until the index has shown every write. `watch` must be running."""
        while self.pending:
            await asyncio.sleep(_LOOK_INTERVAL_S)

    async def _write(self, number: str) -> None:
        self._revision += 1
        self.pending[number] = _Write(self._revision, time.monotonic())
        await self.table.put(_song(number, self._revision, self._random))

    async def _look(self) -> None:
        asked = list(self.pending.items())
        shown = await self.index.look([number for number, _ in asked])
        now_s = time.monotonic()
        for number, write in asked:
            if self.pending[number] is write and _shows(shown.get(number), write.revision):
                del self.pending[number]
                self.arrived += 1
                self.latencies_s.append(now_s - write.started_s)
                if write.revision is not None:
                    self._shown.append(number)

    def _take_shown(self) -> str:
        place = self._random.randrange(len(self._shown))
        self._shown[place], self._shown[-1] = self._shown[-1], self._shown[place]
        return self._shown.pop()


@contextmanager
def _told(server: str) -> Iterator[None]:
    """Turns what the clients raise into one sentence."""
    try:
        yield
    except (BotoCoreError, ClientError, aiohttp.ClientError, TimeoutError) as error:
        raise TrafficError(f"{server} does not answer as it should: {error or type(error).__name__}") from error


@asynccontextmanager
async def open_table(endpoint: str, name: str, *, region: str, access_key: str) -> AsyncIterator[Table]:
    """A table at that endpoint; it is not created yet."""
    async with get_session().create_client(
        "dynamodb",
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key="demo",  # noqa: S106 (the stand-in checks none)
        config=Config(proxies={}, retries={"max_attempts": 2}),
    ) as client:
        yield Table(client, name)


@asynccontextmanager
async def open_index(url: str, name: str) -> AsyncIterator[Index]:
    """An index at that server, whether it exists or not."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield Index(session, url, name)


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest value that is not below `percent` of all values; None when there are none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def differences(table: Mapping[str, Any], index: Mapping[str, Any]) -> list[str]:
    """What the index lacks, has too much, or has otherwise than the table, in sentences."""
    found = [f"document {number} is missing" for number in sorted(table.keys() - index.keys())]
    found += [f"document {number} has no item" for number in sorted(index.keys() - table.keys())]
    for number in sorted(table.keys() & index.keys()):
        if _sortable(table[number]) != _sortable(index[number]):
            found.append(f"document {number} is {index[number]}, its item {table[number]}")
    return found


def plain(value: Mapping[str, Any]) -> Any:
    """The JSON value of one DynamoDB attribute, sets as sorted lists."""
    ((kind, content),) = value.items()
    if kind == "N":
        return Decimal(content)
    if kind in ("SS", "NS"):
        return sorted(Decimal(each) if kind == "NS" else each for each in content)
    if kind == "L":
        return [plain(each) for each in content]
    if kind == "M":
        return {name: plain(each) for name, each in content.items()}
    return None if kind == "NULL" else content


_ARTISTS = ("The Sluices", "Penstock Five", "Tailrace", "Kaplan & Francis", "Weir")
_WORDS = ("river", "gate", "stone", "night", "spill", "turbine", "rain", "level", "north", "current")


def _song(number: str, revision: int, choose: random.Random) -> Item:
    words = choose.sample(_WORDS, 3)
    return {
        "id": {"N": number},
        "revision": {"N": str(revision)},
        "Artist": {"S": choose.choice(_ARTISTS)},
        "SongTitle": {"S": " ".join(words).title()},
        "Awards": {"S": str(choose.randrange(10))},
        "price": {"N": f"{choose.randrange(1, 2000) / 100}"},
        "live": {"BOOL": choose.random() < 0.5},
        "tags": {"SS": words},
        "album": {"M": {"title": {"S": words[0].title()}, "tracks": {"L": [_track(word) for word in words]}}},
        "encore": {"NULL": True},
    }


def _track(word: str) -> dict[str, Any]:
    return {"M": {"title": {"S": word.title()}, "seconds": {"N": str(60 + len(word))}}}


def _revision(doc: Mapping[str, Any]) -> int | None:
    if "error" in doc:
        raise TrafficError(f"the index cannot be read: {doc['error']}")
    # A document without revision is there, but older than anything that is waited for.
    return int(doc["_source"].get("revision", 0)) if doc["found"] else None


def _shows(shown: int | None, revision: int | None) -> bool:
    return shown == revision if revision is None or shown is None else shown >= revision


def _sortable(value: Any) -> Any:
    """Lists of texts without their order, since the sets of DynamoDB have none."""
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return sorted(value)
    if isinstance(value, dict):
        return {name: _sortable(each) for name, each in value.items()}
    return value
