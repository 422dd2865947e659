"""Leases of one machine: an SQLite file that the units of a process tree share and that outlives them.

A write is durable against the end of the process at once (WAL, `synchronous=NORMAL`); after a loss of power the last
ones may be missing, which costs a re-read and no data.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import orjson

from penstock.core.clock import Clock
from penstock.core.errors import Permanent, Transient
from penstock.lib.lease.item import Lease, LeaseLost, Status
from penstock.lib.lease.owner import is_dead
from penstock.lib.lease.transitions import Transitions

BUSY_TIMEOUT_S = 5
"""How long a write waits for that of another unit."""
_TABLES = """
CREATE TABLE IF NOT EXISTS lease (
  source TEXT NOT NULL, key TEXT NOT NULL, status TEXT NOT NULL, owner TEXT, until_ms INTEGER NOT NULL,
  progress TEXT NOT NULL, version INTEGER NOT NULL, reopen_ms INTEGER NOT NULL, closed_count INTEGER NOT NULL,
  number INTEGER PRIMARY KEY AUTOINCREMENT, UNIQUE (source, key));
CREATE TABLE IF NOT EXISTS state (
  source TEXT NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL, PRIMARY KEY (source, key));
"""
_COLUMNS = "source, key, status, owner, until_ms, progress, version, reopen_ms, closed_count"
_FREE = """
SELECT number FROM lease WHERE source = :source AND substr(key, 1, length(:prefix)) = :prefix AND (
  status = 'UNASSIGNED' OR (status = 'CLOSED' AND reopen_ms <= :now)
  OR (status = 'ASSIGNED' AND (until_ms <= :now OR (owner <> :owner AND is_dead(owner)))))
ORDER BY number LIMIT 1
"""
_TAKE = (
    "UPDATE lease SET status = 'ASSIGNED', owner = :owner, until_ms = :until, version = version + 1 "  # noqa: S608
    f"WHERE number = ({_FREE}) RETURNING {_COLUMNS}"
)
T = TypeVar("T")


class SqliteStore(Transitions):
    """Calls run one after the other on a thread of their own, so that a slow disk never holds up the event loop."""

    look_s = 2.0

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._path = path
        self._clock = clock or Clock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="leases")
        self._connection: sqlite3.Connection | None = None
        self._shut = False

    async def create(
        self, source: str, key: str, progress: dict[str, Any] | None = None, *, status: Status = Status.UNASSIGNED
    ) -> bool:
        row = (source, key, status, None, 0, _json(progress or {}), 0, 0, 0)

        def insert(db: sqlite3.Connection) -> bool:
            places = ", ".join("?" * len(row))
            done = db.execute(f"INSERT OR IGNORE INTO lease ({_COLUMNS}) VALUES ({places})", row)  # noqa: S608
            return done.rowcount == 1

        return await self._run(insert)

    async def get(self, source: str, key: str) -> Lease | None:
        def read(db: sqlite3.Connection) -> Lease | None:
            query = f"SELECT {_COLUMNS} FROM lease WHERE source = ? AND key = ?"  # noqa: S608
            row = db.execute(query, (source, key)).fetchone()
            return None if row is None else _lease(row)

        return await self._run(read)

    async def find(self, source: str) -> list[Lease]:
        def read(db: sqlite3.Connection) -> list[Lease]:
            query = f"SELECT {_COLUMNS} FROM lease WHERE source = ? ORDER BY number"  # noqa: S608
            return [_lease(row) for row in db.execute(query, (source,))]

        return await self._run(read)

    async def acquire(self, source: str, owner: str, span_s: float, *, prefix: str = "") -> Lease | None:
        now = self._clock.now_ms()
        values = {
            "source": source,
            "prefix": prefix,
            "owner": owner,
            "now": now,
            "until": now + round(span_s * 1000),
        }

        def take(db: sqlite3.Connection) -> Lease | None:
            # Looking needs no write lock; only a find is worth one.
            if db.execute(_FREE, values).fetchone() is None:
                return None
            row = db.execute(_TAKE, values).fetchone()
            return None if row is None else _lease(row)

        return await self._run(take)

    async def remove(self, source: str, key: str) -> None:
        await self._run(lambda db: db.execute("DELETE FROM lease WHERE source = ? AND key = ?", (source, key)))

    async def state(self, source: str, key: str) -> dict[str, Any] | None:
        def read(db: sqlite3.Connection) -> dict[str, Any] | None:
            row = db.execute("SELECT state FROM state WHERE source = ? AND key = ?", (source, key)).fetchone()
            return None if row is None else orjson.loads(row[0])

        return await self._run(read)

    async def put_state(self, source: str, key: str, state: dict[str, Any]) -> None:
        await self._run(lambda db: db.execute("REPLACE INTO state VALUES (?, ?, ?)", (source, key, _json(state))))

    async def shut(self) -> None:
        if self._shut:
            return
        self._shut = True
        if self._connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        self._thread.shutdown()

    async def _change(self, lease: Lease, progress: dict[str, Any] | None = None, **values: Any) -> Lease:
        if progress is not None:
            values["progress"] = _json(progress)
        changes = ", ".join(f"{name} = ?" for name in values)
        query = (
            f"UPDATE lease SET {changes}, version = version + 1 "  # noqa: S608
            f"WHERE source = ? AND key = ? AND version = ? RETURNING {_COLUMNS}"
        )

        def write(db: sqlite3.Connection) -> Lease:
            row = db.execute(query, (*values.values(), lease.source, lease.key, lease.version)).fetchone()
            if row is None:
                raise LeaseLost(f"{lease.key} has another owner")
            return _lease(row)

        return await self._run(write)

    async def _run(self, call: Callable[[sqlite3.Connection], T]) -> T:
        if self._shut:
            raise Transient(f"the lease file {self._path} is closed")
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._on_thread, call)

    def _on_thread(self, call: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = self._connect()
            return call(self._connection)
        except sqlite3.OperationalError as error:  # locked, disk full, no such folder
            raise Transient(f"the lease file {self._path} cannot be used: {error}") from error
        except sqlite3.DatabaseError as error:
            raise Permanent(f"the lease file {self._path} is damaged: {error}; move it away to start anew") from error

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Each statement is a transaction of its own.
        connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            connection.create_function("is_dead", 1, is_dead)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(_TABLES)
        except sqlite3.Error:
            connection.close()
            raise
        return connection


def _json(value: dict[str, Any]) -> str:
    return orjson.dumps(value).decode()


def _lease(row: tuple[Any, ...]) -> Lease:
    source, key, status, owner, until_ms, progress, version, reopen_ms, closed_count = row
    return Lease(source, key, Status(status), owner, until_ms, orjson.loads(progress), version, reopen_ms, closed_count)
