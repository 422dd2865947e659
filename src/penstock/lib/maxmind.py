"""MaxMind databases (`.mmdb`) from local files, opened when they are first needed and again when a file has changed.

What is read is a private copy, so that a file may be replaced or written over at any time. A file that is cut off is
noticed when it is opened. The library's C reader trusts the rest: it takes a tenth of the time of its Python reader.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from penstock.core.errors import ConfigError, PenstockError

log = logging.getLogger(__name__)

RETRY_S = 30.0
"""Wait before a database that could not be opened is tried again."""
OLD_AFTER_S = 30 * 86_400


class DatabaseFailure(PenstockError):
    """A database cannot be opened or read."""


@dataclass(slots=True)
class _Opened:
    reader: Any
    ip_version: int
    identity: tuple[int, int, int]
    """Which state of the file was opened."""


def check() -> None:
    """Raise `ConfigError` when the library for these databases is not installed."""
    _maxminddb()


class Databases:
    """A set of databases by kind: `city`, `country`, `asn` or `enterprise`."""

    def __init__(
        self,
        paths: Mapping[str, Path],
        *,
        refresh_interval_s: float,
        copies: Path | None = None,
        cache_count: int = 4096,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`copies` is the directory for the private copies; None: that for temporary files."""
        self.paths = dict(paths)
        self.cache_count = cache_count
        """How many results a reader of these databases may remember."""
        self.version = 0
        """Grows when a database was opened anew: results remembered before are out of date."""
        self._refresh_interval_s = refresh_interval_s
        self._copies = copies
        self._monotonic = monotonic
        self._opened: dict[str, _Opened] = {}
        self._due = -1.0

    def refresh(self) -> bool:
        """Open what is not open or has changed, if that is due. Returns whether every database can be read."""
        now = self._monotonic()
        if self._due < 0 or now >= self._due:
            for kind, path in self.paths.items():
                self._refresh(kind, path)
            complete = len(self._opened) == len(self.paths)
            self._due = now + (self._refresh_interval_s if complete else RETRY_S)
        return len(self._opened) == len(self.paths)

    def look_up(self, kind: str, address: IPv4Address | IPv6Address) -> tuple[dict[str, Any], int] | None:
        """What the database of that kind says of an address, with the length of its network's prefix.

        None when it says nothing. Raises `DatabaseFailure`.
        """
        opened = self._opened[kind]
        if address.version > opened.ip_version:
            return None
        try:
            record, prefix_length = opened.reader.get_with_prefix_len(address)
        except (
            _maxminddb().InvalidDatabaseError,
            ValueError,
            TypeError,
            OSError,
            LookupError,
            ArithmeticError,
        ) as error:
            raise DatabaseFailure(f"the {kind} database is damaged: {error}") from error
        return (record, prefix_length) if isinstance(record, dict) and record else None

    def _refresh(self, kind: str, path: Path) -> None:
        known = self._opened.get(kind)
        try:
            found = path.stat()
            identity = (found.st_mtime_ns, found.st_size, found.st_ino)
            if known is None or known.identity != identity:
                self._opened[kind] = self._open(path, identity)
                self.version += 1
        except (OSError, ValueError, _maxminddb().InvalidDatabaseError) as error:
            what = "is used as it was" if known else f"is tried again in {RETRY_S:.0f} s"
            log.error("The %s database %s cannot be opened and %s: %s", kind, path, what, error)

    def _open(self, path: Path, identity: tuple[int, int, int]) -> _Opened:
        if self._copies is not None:
            self._copies.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._copies, suffix=".mmdb") as copy:
            with path.open("rb") as original:
                shutil.copyfileobj(original, copy)
            copy.flush()
            reader = _maxminddb().open_database(copy.name)  # maps the file, which needs no name any more
        metadata = reader.metadata()
        if time.time() - metadata.build_epoch > OLD_AFTER_S:
            log.warning("The database %s is more than 30 days old", path)
        return _Opened(reader, metadata.ip_version, identity)


def _maxminddb() -> Any:
    try:
        import maxminddb
    except ImportError:
        raise ConfigError("MaxMind databases need maxminddb: pip install 'penstock[geoip]'") from None
    return maxminddb
