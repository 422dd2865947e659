"""Stream records as events: bodies, the metadata that the `opensearch` sink reads, and versions that never fall."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from penstock import sdk
from penstock.plugins.sources.dynamodb import attributes

_MICROS = 1_000_000
_ACTIONS = {"INSERT": "index", "MODIFY": "index", "REMOVE": "delete"}
_TTL_USER = ("Service", "dynamodb.amazonaws.com")
_LOCAL_TTL_EVENT = "UNKNOWN_TO_SDK_VERSION"
"""DynamoDB Local names the removal of an expired item so, and gives no user."""


@dataclass(slots=True)
class Versions:
    """Versions of the records of one shard and its children: epoch second x 1,000,000 + n.

    n counts the records of one second. A record stamped earlier than the one before it goes on from that one, for the
    order of the shard is the order of the changes: else the later change would lose against the earlier.
    """

    last: int = -1

    def next(self, second: int) -> int:
        """The version of the next record."""
        floor = second * _MICROS
        self.last = floor if floor > self.last else self.last + 1
        return self.last

    def progress(self) -> dict[str, int]:
        """As it stands in a checkpoint."""
        if self.last < 0:
            return {}
        second, n = divmod(self.last, _MICROS)
        return {"second": second, "n": n}

    @classmethod
    def of(cls, progress: dict[str, Any]) -> Versions:
        return cls(progress["second"] * _MICROS + progress["n"]) if "second" in progress else cls()


@dataclass(slots=True)
class Page:
    """The events of one read."""

    batch: sdk.Batch
    sizes: list[int]
    """Bytes of each event as the stream counts them."""
    skipped: int
    """Records from before the start."""
    records: list[dict[str, Any]]
    """What each event was made of."""


@dataclass(frozen=True, slots=True)
class Recorder:
    """Makes events from the records of one stream."""

    table_name: str
    partition_key: str
    sort_key: str | None
    view_on_remove: str
    start_ms: int
    """Older records are skipped."""
    resolution_ms: int
    """Of the stamps, where they have no fraction of a second."""
    errors: sdk.Counter
    log: logging.Logger

    def page(self, records: list[dict[str, Any]], versions: Versions, received_ms: int) -> Page:
        """Events of `records`; one that cannot be converted is counted and left out, the others go on."""
        bodies: list[sdk.Body] = []
        metas: list[sdk.Meta | None] = []
        sizes: list[int] = []
        made: list[dict[str, Any]] = []
        skipped = 0
        for record in records:
            try:
                change = record["dynamodb"]
                stamp = change["ApproximateCreationDateTime"]
                stamp_ms = round(stamp * 1000)
                if self._is_old(stamp_ms):
                    skipped += 1
                    continue
                body, found = self._event(record, change)
            except (sdk.EventError, AttributeError, KeyError, TypeError) as error:
                self.errors.add()
                reason = error if isinstance(error, sdk.EventError) else f"{type(error).__name__}: {error}"
                self.log.error("Failed to parse and convert data from stream due to %s", reason)
                continue
            found["dynamodb_timestamp"] = stamp_ms
            found["document_version"] = versions.next(stamp_ms // 1000)
            bodies.append(body)
            made.append(record)
            metas.append(sdk.Meta("STREAM", received_ms, found, (), stamp_ms))
            sizes.append(change.get("SizeBytes", 0))
        return Page(sdk.Batch(bodies, metas), sizes, skipped, made)

    def again(self, record: dict[str, Any], version: int, received_ms: int) -> tuple[sdk.Body, sdk.Meta]:
        """The event of a record that was read before, with its version. Raises `EventError`."""
        stamp_ms = round(record["dynamodb"]["ApproximateCreationDateTime"] * 1000)
        body, found = self._event(record, record["dynamodb"])
        found["dynamodb_timestamp"], found["document_version"] = stamp_ms, version
        return body, sdk.Meta("STREAM", received_ms, found, (), stamp_ms)

    def counts(self, record: dict[str, Any]) -> int | None:
        """The stamp of a record in milliseconds, None where it is from before the start or has none."""
        stamp = record.get("dynamodb", {}).get("ApproximateCreationDateTime")
        if stamp is None:
            return None
        stamp_ms: int = round(stamp * 1000)
        return None if self._is_old(stamp_ms) else stamp_ms

    def _is_old(self, stamp_ms: int) -> bool:
        resolution = self.resolution_ms if stamp_ms % 1000 == 0 else 1
        return stamp_ms < self.start_ms - self.start_ms % resolution

    def _event(self, record: dict[str, Any], change: dict[str, Any]) -> tuple[sdk.Body, dict[str, Any]]:
        name, ttl = self._name(record, change)
        keys = change["Keys"]
        partition_key = attributes.key_text(keys[self.partition_key])
        found: dict[str, Any] = {
            "table_name": self.table_name,
            "partition_key": partition_key,
            "primary_key": partition_key,
            "dynamodb_event_name": name,
            "opensearch_action": _ACTIONS[name],
            "ttl_delete": ttl,
        }
        if self.sort_key is not None:
            sort_key = attributes.key_text(keys[self.sort_key])
            found["sort_key"] = sort_key
            found["primary_key"] = f"{partition_key}|{sort_key}"
        image = change.get("NewImage")
        if name == "REMOVE":
            if self.view_on_remove == "OLD_IMAGE":
                image = change.get("OldImage")
                if image is None:
                    self.log.warning(
                        "view_on_remove with OLD_IMAGE is enabled, but no old image can be found on the stream record, "
                        "using NEW_IMAGE"
                    )
                    image = change.get("NewImage")
        elif image is None:
            raise sdk.EventError(f"the {name} record of {found['primary_key']} has no new image", cause="image")
        return ({} if image is None else attributes.item(image)), found

    def _name(self, record: dict[str, Any], change: dict[str, Any]) -> tuple[str, bool]:
        name = record.get("eventName")
        if name in _ACTIONS:
            user = record.get("userIdentity") or {}
            ttl = name == "REMOVE" and (_field(user, "type"), _field(user, "principalId")) == _TTL_USER
            return name, ttl
        if name == _LOCAL_TTL_EVENT and "NewImage" not in change:
            return "REMOVE", True
        raise sdk.EventError(f"unknown event name {name}", cause="event_name")


def _field(user: dict[str, Any], name: str) -> Any:
    """A field of `userIdentity`: the service spells it `type`, some models `Type`."""
    return user.get(name, user.get(name[0].upper() + name[1:]))
