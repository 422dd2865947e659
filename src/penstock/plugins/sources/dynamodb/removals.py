"""Removals that are read before the export is loaded: kept, and sent again once it is.

An index forgets a removal after a minute. An item of the export that arrives later, with its older version, would bring
the document back; the removal sent again, with the version it had, takes it away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from penstock import sdk
from penstock.lib.lease import Lease, LeaseLost
from penstock.plugins.sources.dynamodb.reader import LEASE_S, Surroundings, sleep, write_in_parts
from penstock.plugins.sources.dynamodb.records import Page, Recorder

KEPT_MAX = 75
"""Removals in one item of the store, which takes 400 KB where it is a table."""
IMAGE_BYTES_MAX = 1500
"""Larger old images are not kept: the removal is sent again with an empty body."""
LOOK_S = 60.0
"""How often is looked for more: another unit may have kept some before it heard that the export is loaded."""


async def keep(shared: Surroundings, key: str, page: Page) -> None:
    """Keep the removals of a page. Doing so twice is fine."""
    kept = []
    for place, record in enumerate(page.records):
        found = page.batch.peek(place).attributes
        if found["opensearch_action"] == "delete":
            kept.append({"record": _small(record, page.sizes[place]), "version": found["document_version"]})
    for start in range(0, len(kept), KEPT_MAX):
        item = {"removals": kept[start : start + KEPT_MAX]}
        await shared.store.create(shared.removals_of, f"{shared.table_arn}|{key}|{start}", item)


def _small(record: dict[str, Any], size: int) -> dict[str, Any]:
    change = {name: value for name, value in record["dynamodb"].items() if name != "NewImage"}
    if size > IMAGE_BYTES_MAX:
        change["OldImage"] = {}
    small = {"eventName": record.get("eventName"), "dynamodb": change}
    if "userIdentity" in record:
        small["userIdentity"] = record["userIdentity"]
    return small


async def send_again(shared: Surroundings, owner: str, recorder: Callable[[], Recorder]) -> None:
    """Once the export is loaded, deliver what was kept, for ever."""
    never = asyncio.Event()
    await shared.loaded.wait()
    while True:
        try:
            lease = await shared.store.acquire(shared.removals_of, owner, LEASE_S, prefix=f"{shared.table_arn}|")
            if lease is not None and await _deliver(shared, lease, recorder()):
                await shared.store.remove(lease.source, lease.key)
                continue
        except (sdk.Transient, LeaseLost) as error:
            shared.log.warning("Removals that were kept could not be sent again yet: %s", error)
        await sleep(never, LOOK_S)


async def _deliver(shared: Surroundings, lease: Lease, recorder: Recorder) -> bool:
    bodies: list[sdk.Body] = []
    metas: list[sdk.Meta | None] = []
    for kept in lease.progress["removals"]:
        body, meta = recorder.again(kept["record"], kept["version"], shared.clock.now_ms())
        bodies.append(body)
        metas.append(meta)
    done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    handle = shared.output.handle(lambda ok: None if done.done() else done.set_result(ok))
    batch = sdk.Batch(bodies, metas)
    batch.promise(handle)
    try:
        await write_in_parts(shared.output, batch, [200] * len(bodies), lambda part, _error: part.release_all(ok=True))
        handle.seal()
        return await _while_owned(shared, lease, done)
    except BaseException:
        batch.release_all(ok=False)
        handle.expire()
        raise


async def _while_owned(shared: Surroundings, lease: Lease, done: asyncio.Future[bool]) -> bool:
    while not done.done():
        await asyncio.wait([done], timeout=LEASE_S / 3)
        if not done.done():
            lease = await shared.store.renew(lease, LEASE_S)
    if not done.result():
        await shared.store.give_up(lease)
    return done.result()
