"""From a plan to running pipelines: workers, delivery, draining, admin endpoints."""
