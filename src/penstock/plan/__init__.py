"""From checked documents to an immutable graph of plugins. Offline, no I/O, all problems at once."""

from penstock.plan.graph import PipelinePlan, Plan, PluginPlan, SinkPlan
from penstock.plan.make import COMPATIBLE_VERSION, PROFILES, make_plan
from penstock.plan.references import resolve_references

__all__ = [
    "COMPATIBLE_VERSION",
    "PROFILES",
    "PipelinePlan",
    "Plan",
    "PluginPlan",
    "SinkPlan",
    "make_plan",
    "resolve_references",
]
