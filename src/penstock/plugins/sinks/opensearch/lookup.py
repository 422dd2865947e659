"""`query_lookup`: documents that may be there already are searched for before they are written.

For targets without ids of their own (data streams, time-series collections), where writing again makes a duplicate. A
document counts as there when the index holds one with the same value of `query_term`. What is not found is searched for
again every 20 s, as a server shows documents late, and written once `query_duration` is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from penstock import sdk
from penstock.plugins.sinks.opensearch.client import Cluster
from penstock.plugins.sinks.opensearch.options import QueryLookup
from penstock.plugins.sinks.opensearch.reply import error_text

INTERVAL_S = 20.0
LOST_S = 3600.0
VALUES_MAX = 1000
"""Values in one search."""
HITS_MAX = 10_000


class Lookup:
    """Knows the items that are to be searched for, by identity: the runtime sends the same bytes again."""

    def __init__(
        self,
        options: QueryLookup,
        cluster: Cluster,
        ctx: sdk.Context,
        parts: Callable[[bytes], tuple[str, dict[str, Any], Any]],
    ) -> None:
        self._options = options
        self._cluster = cluster
        self._now = ctx.clock.monotonic
        self._log = ctx.log
        self._parts = parts
        self._test = options.query_when.test
        self._term = options.query_term
        self._since: dict[int, tuple[bytes, float]] = {}
        """Items and when their search began. The bytes are held, so that no other item gets their identity."""
        metrics = ctx.metrics
        self._added = metrics.counter("eventsAddedForQuerying")
        self._dropped = metrics.counter("eventsDroppedAndReleasedAfterQuery")
        self._returned = metrics.counter("eventsReturnedForIndexingAfterQuery")
        self._potential = metrics.counter("potentialDuplicates")
        self._repeated = metrics.counter("duplicateEventsInQueryManager")
        self._duration = metrics.timer("queryDuplicatesTime")
        metrics.gauge("documentsBeingQueried", lambda: len(self._since))

    @property
    def idle(self) -> bool:
        """Whether nothing is searched for."""
        return not self._since

    def watch(self, batch: sdk.Batch, items: sdk.Items) -> None:
        """Search for those of the encoded events for which `query_when` is true."""
        bodies, metas, origin = batch.bodies, batch.metas, batch.origin
        for data, slot in zip(items.data, items.slots, strict=True):
            try:
                wanted = self._test(bodies[slot], metas[slot] or origin)
            except sdk.ExpressionError as error:
                self._log.debug("query_when: %s", error)
                continue
            if wanted:
                self._add(data)

    def answer_is_unknown(self, data: Sequence[bytes]) -> None:
        """A request failed in a way that may hide a success: search for its documents before they are sent again."""
        if self._options.query_on_bulk_errors:
            for item in data:
                if id(item) not in self._since:
                    self._add(item)

    def _forget_lost(self) -> None:
        """Items that have not come back for long: they were withdrawn, or sent in another form."""
        while self._since:
            identity, (_, since) = next(iter(self._since.items()))
            if self._now() - since < self._options.query_duration + LOST_S:
                return
            del self._since[identity]

    def _add(self, item: bytes) -> None:
        self._since[id(item)] = (item, self._now())
        self._added.add()

    def are_there(self, found: Sequence[bytes]) -> None:
        """The request with these items, which need not be written, is over: they will not come back."""
        for item in found:
            self._since.pop(id(item), None)
        self._dropped.add(len(found))

    async def sort_out(
        self, data: Sequence[bytes]
    ) -> tuple[Sequence[bytes], list[int], list[sdk.Failure], list[bytes]]:
        """What is to be written now with its places, what has to wait, and what is there already.

        The last is for `are_there` once the others are written: until then all of them may come back and are searched
        for again. Raises `Transient` when the server cannot be asked.
        """
        self._forget_lost()
        asked = [place for place, item in enumerate(data) if id(item) in self._since]
        if not asked:
            return data, list(range(len(data))), [], []
        begin = self._now()
        items = list(data)  # one of them by its place costs as much as all of them
        found, over_limit = await self._search(items, asked)
        self._duration.observe(self._now() - begin)
        kept: list[bytes] = []
        places: list[int] = []
        held: list[sdk.Failure] = []
        there: list[bytes] = []
        for place, item in enumerate(items):
            entry = self._since.get(id(item))
            if place in found:
                there.append(item)
                continue
            if entry is not None and place not in over_limit and begin - entry[1] >= self._options.query_duration:
                del self._since[id(item)]
                self._returned.add()
                entry = None
            if entry is None:
                kept.append(item)
                places.append(place)
            else:
                reason = "waits until it is known whether the document is there already"
                held.append(sdk.Failure(place, reason, retryable=True, retry_after_s=INTERVAL_S, counts=False))
        return kept, places, held, there

    async def _search(self, data: Sequence[bytes], asked: list[int]) -> tuple[set[int], set[int]]:
        """Places whose documents are there, and places that were too many to be asked for this time."""
        wanted: dict[str, dict[Any, list[int]]] = {}
        for place in asked[: self._options.async_limit]:
            _, target, document = self._parts(data[place])
            value = self._term.get(document) if isinstance(document, dict) else sdk.MISSING
            if isinstance(value, str | int | float):
                places = wanted.setdefault(target.get("_index", ""), {}).setdefault(value, [])
                if places:
                    self._repeated.add()
                places.append(place)
            else:  # there is nothing to search for
                del self._since[id(data[place])]
        found: set[int] = set()
        for index, places_of in wanted.items():
            values = list(places_of)
            for start in range(0, len(values), VALUES_MAX):
                for value in await self._values_there(index, values[start : start + VALUES_MAX]):
                    found.update(places_of.get(value, ()))
        self._potential.add(len(found))
        return found, set(asked[self._options.async_limit :])

    async def _values_there(self, index: str, values: list[Any]) -> list[Any]:
        field = ".".join(self._term.parts)
        body = {
            "size": min(HITS_MAX, 5 * len(values)),
            "_source": [field],
            "query": {"bool": {"filter": [{"terms": {field: values}}]}},
        }
        reply = await self._cluster.call("POST", f"/{quote(index, safe='')}/_search", body=body)
        if reply.status == 404:  # nothing is there yet
            return []
        if reply.status >= 300:
            raise sdk.Transient(f"the search for duplicates failed: {error_text(reply.status, reply.body)}")
        hits = reply.json().get("hits", {}).get("hits", ())
        sources = [hit.get("_source", {}) for hit in hits]
        return [value for value in map(self._term.get, sources) if isinstance(value, str | int | float)]
