"""What every lease store promises, and what the one in a file promises beyond."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.clock import ManualClock
from penstock.core.errors import Permanent, Transient
from penstock.lib.lease import (
    Lease,
    LeaseLost,
    LeaseStore,
    Members,
    MemoryStore,
    Share,
    SqliteStore,
    Status,
    is_dead,
    new_owner,
    share_of,
)

SOURCE = "pipe|STREAM"


def asynchronous(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


Make = Callable[[ManualClock], LeaseStore]


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    if request.param == "memory":
        return MemoryStore
    return lambda clock: SqliteStore(tmp_path / "deep" / "leases.db", clock)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@asynchronous
async def test_items_are_taken_oldest_first_and_by_one_owner_only(make: Make, clock: ManualClock) -> None:
    store = make(clock)
    for key in ("s1|b", "s1|a", "s2|a"):
        assert await store.create(SOURCE, key, {"startTime": 1})
    assert not await store.create(SOURCE, "s1|b", {"startTime": 2})
    await store.create("other|STREAM", "s1|z")
    first, second = new_owner(), new_owner()

    taken = [await store.acquire(SOURCE, owner, 10, prefix="s1|") for owner in (first, second, first)]
    assert [lease and (lease.key, lease.owner) for lease in taken] == [("s1|b", first), ("s1|a", second), None]
    assert taken[0] is not None
    assert (taken[0].status, taken[0].progress) == (Status.ASSIGNED, {"startTime": 1})
    last = await store.acquire(SOURCE, second, 10)
    assert last is not None and last.key == "s2|a"
    assert [lease.key for lease in await store.find(SOURCE)] == ["s1|b", "s1|a", "s2|a"]
    await store.shut()


@asynchronous
async def test_a_lease_that_ran_out_is_lost_to_the_next_owner(make: Make, clock: ManualClock) -> None:
    store = make(clock)
    await store.create(SOURCE, "k", {"sequenceNumber": None})
    first, second = new_owner(), new_owner()
    held = await store.acquire(SOURCE, first, 10)
    assert held is not None
    clock.advance(8)
    held = await store.renew(held, 10)
    clock.advance(8)
    held = await store.save(held, {"sequenceNumber": "5"}, 10)
    clock.advance(9.9)
    assert await store.acquire(SOURCE, second, 10) is None
    clock.advance(0.2)
    taken = await store.acquire(SOURCE, second, 10)
    assert taken is not None and taken.progress == {"sequenceNumber": "5"}
    for late in (
        store.save(held, {"sequenceNumber": "3"}, 10),
        store.renew(held, 10),
        store.give_up(held),
        store.complete(held),
        store.close(held, 1, 1),
    ):
        with pytest.raises(LeaseLost):
            await late
    now = await store.get(SOURCE, "k")
    assert now is not None and (now.owner, now.progress) == (second, {"sequenceNumber": "5"})
    await store.shut()


@asynchronous
async def test_given_up_items_go_on_and_completed_ones_do_not(make: Make, clock: ManualClock) -> None:
    store = make(clock)
    owner = new_owner()
    await store.create(SOURCE, "k")
    held = await store.acquire(SOURCE, owner, 10)
    assert held is not None
    free = await store.give_up(held, {"n": 1})
    assert (free.status, free.owner, free.until_ms) == (Status.UNASSIGNED, None, 0)
    held = await store.acquire(SOURCE, owner, 10)
    assert held is not None and held.progress == {"n": 1}
    done = await store.complete(held, {"n": 2})
    assert (done.status, done.owner, done.progress) == (Status.COMPLETED, None, {"n": 2})
    clock.advance(10_000)
    assert await store.acquire(SOURCE, owner, 10) is None
    await store.remove(SOURCE, "k")
    assert await store.get(SOURCE, "k") is None
    assert await store.create(SOURCE, "k")
    await store.shut()


@asynchronous
async def test_closed_items_come_back_until_they_have_been_closed_too_often(make: Make, clock: ManualClock) -> None:
    store = make(clock)
    owner = new_owner()
    await store.create(SOURCE, "k")
    for closures in (1, 2):
        held = await store.acquire(SOURCE, owner, 10)
        assert held is not None
        closed = await store.close(held, 600, 2)
        assert (closed.status, closed.closed_count) == (Status.CLOSED, closures)
        clock.advance(599)
        assert await store.acquire(SOURCE, owner, 10) is None
        clock.advance(2)
    held = await store.acquire(SOURCE, owner, 10)
    assert held is not None
    assert (await store.close(held, 600, 2)).status is Status.COMPLETED
    await store.shut()


@asynchronous
async def test_progress_is_a_copy(make: Make, clock: ManualClock) -> None:
    store = make(clock)
    progress = {"streamArns": ["a"]}
    await store.create(SOURCE, "k", progress)
    await store.put_state(SOURCE, "s", progress)
    progress["streamArns"].append("b")
    held = await store.get(SOURCE, "k")
    assert held is not None and held.progress == {"streamArns": ["a"]}
    held.progress["streamArns"].append("c")
    again = await store.get(SOURCE, "k")
    assert again is not None and again.progress == {"streamArns": ["a"]}
    assert await store.state(SOURCE, "s") == {"streamArns": ["a"]}
    assert await store.state(SOURCE, "none") is None
    await store.shut()
    await store.shut()


@asynchronous
async def test_many_takers_get_each_item_once(make: Make, clock: ManualClock) -> None:
    store = make(clock)
    for number in range(20):
        await store.create(SOURCE, str(number))
    taken = await asyncio.gather(*(store.acquire(SOURCE, new_owner(), 10) for _ in range(30)))
    keys = [lease.key for lease in taken if lease is not None]
    assert sorted(keys) == sorted(map(str, range(20)))
    await store.shut()


def dead_owner() -> str:
    """The name of an owner whose process has ended."""
    script = "from penstock.lib.lease import new_owner; print(new_owner())"
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.strip()


def test_owners_are_unique_and_tell_whether_they_live() -> None:
    owner = new_owner()
    assert owner != new_owner()
    assert not is_dead(owner)
    gone = dead_owner()
    assert is_dead(gone)
    host, _pid, started, number = gone.rsplit(":", 3)
    assert not is_dead(f"elsewhere:{gone.split(':', 1)[1]}")
    if started != "unknown":
        assert is_dead(f"{host}:{os.getpid()}:1:{number}")  # the id was given to another process since
    for odd in ("", "x", "a:b:c:d", "host-of-the-original"):
        assert not is_dead(odd)


@asynchronous
async def test_leases_of_a_dead_process_of_this_machine_are_free_at_once(make: Make, clock: ManualClock) -> None:
    store = make(clock)
    await store.create(SOURCE, "k")
    assert await store.acquire(SOURCE, dead_owner(), 600) is not None
    taken = await store.acquire(SOURCE, new_owner(), 600)
    assert taken is not None and taken.key == "k"
    await store.shut()


@asynchronous
async def test_two_stores_on_one_file_see_each_other(tmp_path: Path, clock: ManualClock) -> None:
    first, second = (SqliteStore(tmp_path / "leases.db", clock) for _ in range(2))
    await first.create(SOURCE, "k", {"n": 1})
    held = await second.acquire(SOURCE, new_owner(), 10)
    assert held is not None
    assert await first.acquire(SOURCE, new_owner(), 10) is None
    await second.save(held, {"n": 2}, 10)
    await second.shut()
    seen = await first.get(SOURCE, "k")
    assert seen is not None and seen.progress == {"n": 2}
    await first.shut()


@asynchronous
async def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    path.write_bytes(b"no database" * 1000)
    store = SqliteStore(path)
    with pytest.raises(Permanent, match=r"leases\.db is damaged"):
        await store.find(SOURCE)
    await store.shut()


@asynchronous
async def test_a_file_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)  # a folder stands there
    with pytest.raises(Transient, match="cannot be used"):
        await store.find(SOURCE)
    await store.shut()
    with pytest.raises(Transient, match="closed"):
        await store.find(SOURCE)


@asynchronous
async def test_members_come_and_go(make: Make, clock: ManualClock) -> None:
    store = make(clock)
    first, second, third = new_owner(), new_owner(), new_owner()
    members = {owner: Members(store, "pipe|UNIT", owner, clock) for owner in (first, second, third)}
    assert await members[first].look() == [first]
    assert await members[second].look() == sorted([first, second])
    assert await members[first].look() == sorted([first, second])
    await members[third].look()
    await members[second].leave()
    assert await members[first].look() == sorted([first, third])
    for _ in range(4):  # the third one says nothing any more
        clock.advance(19)
        await members[first].look()
    assert await members[first].look() == [first]
    assert await members[third].look() == sorted([first, third]), "it was only slow"
    await members[first].leave()
    await members[third].leave()
    assert await store.find("pipe|UNIT") == []
    await store.shut()


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    free=st.integers(0, 20),
    completed=st.integers(0, 3),
)
def test_shares_end_up_at_most_one_apart(counts: list[int], free: int, completed: int) -> None:
    """Units look one after the other, give up what is too much and take what is due; after a few rounds all is even."""
    members = [f"unit-{number}" for number in range(len(counts))]
    owners: list[str | None] = [owner for owner, count in zip(members, counts, strict=True) for _ in range(count)]
    owners += [None] * free
    done = [Lease(SOURCE, f"done-{n}", Status.COMPLETED) for n in range(completed)]

    def share(owner: str) -> Share:
        statuses = [Status.ASSIGNED if held else Status.UNASSIGNED for held in owners]
        leases = [
            Lease(SOURCE, str(n), status, held) for n, (status, held) in enumerate(zip(statuses, owners, strict=True))
        ]
        return share_of(owner, members, leases + done)

    for _ in range(40):
        for owner in members:
            due = share(owner)
            for _ in range(due.excess):
                owners[owners.index(owner)] = None
            while not due.excess and None in owners and owners.count(owner) < due.most:
                owners[owners.index(None)] = owner
    held = [owners.count(owner) for owner in members]
    assert sum(held) == len(owners), "nothing is left over"
    assert max(held) - min(held) <= 1
    assert not any(share(owner).excess for owner in members), "and then nothing moves any more"


def test_many_processes_open_one_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "leases.db"
    code = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from penstock.lib.lease import SqliteStore, new_owner\n"
        "async def main():\n"
        "    store, owner, held = SqliteStore(Path(sys.argv[1])), new_owner(), 0\n"
        "    sys.stdin.read()\n"
        "    for n in range(50):\n"
        "        await store.create('pipe|STREAM', f'{n:02}')\n"
        "    while (lease := await store.acquire('pipe|STREAM', owner, 600)) is not None:\n"
        "        lease = await store.save(lease, {'by': owner}, 600)\n"
        "        await store.complete(lease)\n"
        "        held += 1\n"
        "    await store.shut()\n"
        "    print(held)\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    units = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    for unit in units:  # they wait for the end of their input, and begin together
        assert unit.stdin is not None
        unit.stdin.close()
        unit.stdin = None
    found = [int(unit.communicate(timeout=25)[0]) for unit in units]
    assert [unit.returncode for unit in units] == [0] * 6
    assert sum(found) == 50, "each item was worked on once"
