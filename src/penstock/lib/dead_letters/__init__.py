"""Dead letters that were kept: found in files or S3, read in any of their forms, sorted by cause, marked as replayed.

async with open_store("s3://bucket/dlq-files") as store:
    for volume in await store.volumes():
        done = await store.replayed(volume)
        async for record in store.read(volume):
            ...
"""

from penstock.lib.dead_letters.causes import cause_in, cause_of
from penstock.lib.dead_letters.filters import Filter, parse_moment
from penstock.lib.dead_letters.record import Record, read_records
from penstock.lib.dead_letters.store import Location, Store, Unreadable, Volume, open_store

__all__ = [
    "Filter",
    "Location",
    "Record",
    "Store",
    "Unreadable",
    "Volume",
    "cause_in",
    "cause_of",
    "open_store",
    "parse_moment",
    "read_records",
]
