"""Leases: who works on which partition of a source, and how far the work has come.

A leader makes one item per partition (a shard, an export, a file); units acquire an item, renew it while they work,
save progress, and complete it or give it up. Every change checks the item's version: who has lost a lease cannot
overwrite the progress of the new owner. `MemoryStore` forgets with the process, `SqliteStore` shares one machine;
`penstock.lib.lease.dynamodb.DynamodbStore`, imported by who needs it, is for several.
"""

from penstock.lib.lease.item import Lease, LeaseLost, LeaseStore, Status
from penstock.lib.lease.members import Members, Share, share_of
from penstock.lib.lease.memory import MemoryStore
from penstock.lib.lease.owner import is_dead, new_owner
from penstock.lib.lease.sqlite import SqliteStore

__all__ = [
    "Lease",
    "LeaseLost",
    "LeaseStore",
    "Members",
    "MemoryStore",
    "Share",
    "SqliteStore",
    "Status",
    "is_dead",
    "new_owner",
    "share_of",
]
