"""The store of leases that the server configuration names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from penstock.core.clock import Clock

if TYPE_CHECKING:
    from penstock.config.server import SourceCoordination
    from penstock.lib.lease import LeaseStore


def lease_opener(coordination: SourceCoordination, clock: Clock) -> Callable[[], LeaseStore] | None:
    """A function that opens the store; None where each source keeps its leases in the data directory.

    That is so with `in_memory` too: what is kept in a file survives a restart and costs nothing.
    """
    options = coordination.dynamodb()
    if options is None:
        return None
    from penstock.lib.lease.dynamodb import DynamodbLeases, DynamodbStore

    leases = DynamodbLeases(
        options.table_name,
        options.region,
        options.sts_role_arn,
        options.sts_external_id,
        options.sts_header_overrides,
        options.skip_table_creation,
        options.provisioned_read_capacity_units,
        options.provisioned_write_capacity_units,
        options.ttl,
    )
    return lambda: DynamodbStore(leases, clock)
