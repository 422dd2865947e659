"""Delivery to the sinks: accumulation, lanes, order, retry, dead letters and the release of every event.

Nobody else retries, dead-letters or releases. Source of the rules: `delivery` in docs/behaviour.md.
"""

from penstock.runtime.deliver.bulk import BulkDelivery
from penstock.runtime.deliver.surroundings import Delivery, SinkState, Surroundings, document_at, plain
from penstock.runtime.deliver.write import WriteDelivery

__all__ = ["BulkDelivery", "Delivery", "SinkState", "Surroundings", "WriteDelivery", "document_at", "plain"]
