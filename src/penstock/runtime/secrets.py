"""Secrets are read again while pipelines run; sinks that can go on with new ones do, for all others the log tells."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from penstock.config.references import Reference, References
from penstock.core.clock import Clock
from penstock.core.errors import PenstockError
from penstock.core.metrics import Registry
from penstock.lib.aws import code_of
from penstock.plan import Plan
from penstock.plan.graph import PluginPlan
from penstock.sdk import Context

log = logging.getLogger(__name__)

JITTER_S = 60.0
"""Processes that were started together do not read all at once."""
_KNOWN_REFUSALS = {
    "ResourceNotFoundException": "secretsSecretNotFound",
    "LimitExceededException": "secretsLimitExceeded",
    "AccessDeniedException": "secretsAccessDenied",
}


@dataclass(frozen=True, slots=True)
class Renewal:
    """The values that a plan was made with, and how it is made with others. Its values are never shown."""

    references: References = field(repr=False)
    make: Callable[[References], Plan] = field(repr=False)


@dataclass(slots=True)
class _User:
    """A plugin whose options hold secrets."""

    pipeline: str
    plugin: PluginPlan
    values: dict[Reference, str] = field(repr=False)
    """What it works with; for one that needs a restart what the log has told of."""
    sink: int | None = None
    """Its position among the sinks of its pipeline."""

    def changed(self, values: Mapping[Reference, str]) -> list[tuple[str, Reference]]:
        """The options with a secret that now has another value."""
        return [(option, ref) for option, ref in self.plugin.secrets if values.get(ref) != self.values.get(ref)]


class SecretRefresher:
    """Reads each secret of a plan again every `refresh_interval`. `run` it beside the pipelines."""

    def __init__(
        self,
        plan: Plan,
        renewal: Renewal,
        sinks: Mapping[tuple[str, int], Any],
        registry: Registry,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._renewal = renewal
        self._references = renewal.references
        self._sinks = sinks
        self._clock = clock
        self._random = chance
        self._extension = next((plugin for plugin in plan.extensions if plugin.name == "aws"), None)
        self._users = self._users_of(plan)
        self._renewing = asyncio.Lock()
        self._metrics = registry.scope("aws", "secrets")
        for name in self._wanted():
            for meter in ("secretsRefreshSuccess", "secretsRefreshFailure", *_KNOWN_REFUSALS.values()):
                self._metrics.counter(meter, secretConfigId=name)

    def _users_of(self, plan: Plan) -> list[_User]:
        found: list[tuple[str, PluginPlan, int | None]] = []
        for pipeline in plan.pipelines:
            sources = [] if pipeline.source is None else [pipeline.source]
            others = [*sources, pipeline.buffer, *pipeline.processors]
            found += [(pipeline.name, plugin, None) for plugin in others]
            found += [(pipeline.name, sink.plugin, place) for place, sink in enumerate(pipeline.sinks)]
        return [_User(name, plugin, self._values_of(plugin), place) for name, plugin, place in found if plugin.secrets]

    def _values_of(self, plugin: PluginPlan) -> dict[Reference, str]:
        values = self._references.values
        return {reference: values[reference] for _, reference in plugin.secrets if reference in values}

    def _wanted(self) -> dict[str, set[Reference]]:
        """The references to each secret that is to be read again."""
        wanted: dict[str, set[Reference]] = {}
        if self._extension is not None:
            secrets = self._extension.config.secrets
            for user in self._users:
                for _, reference in user.plugin.secrets:
                    if reference.name in secrets and not secrets[reference.name].disable_refresh:
                        wanted.setdefault(reference.name, set()).add(reference)
        return wanted

    async def run(self) -> None:
        """Read each secret when it is due, for ever; ends at once when there is none."""
        async with asyncio.TaskGroup() as group:
            for name, references in self._wanted().items():
                group.create_task(self._refresh_regularly(name, references))

    async def _refresh_regularly(self, name: str, references: set[Reference]) -> None:
        assert self._extension is not None, "only its secrets are read"
        interval_s = self._extension.config.secrets[name].refresh_interval
        await asyncio.sleep(interval_s + self._random.random() * JITTER_S)
        while True:
            begin = self._clock.monotonic()
            values = await self._read(name, references, interval_s)
            if values is not None:
                async with self._renewing:
                    await self._use(values)
            await asyncio.sleep(max(1.0, interval_s - (self._clock.monotonic() - begin)))

    async def _read(self, name: str, references: set[Reference], interval_s: float) -> dict[Reference, str] | None:
        """The values, all of one reading; None when it failed."""
        assert self._extension is not None, "only its secrets are read"
        begin = self._clock.monotonic()
        try:
            ctx = Context("extensions", "aws", kind="extension")
            async with self._extension.module.build(self._extension.config, ctx) as secrets:
                values = {reference: await secrets.read(reference.name, reference.key) for reference in references}
        except Exception as error:  # noqa: BLE001 (the pipelines go on whatever it is, and the log tells)
            self._metrics.counter("secretsRefreshFailure", secretConfigId=name).add()
            known = _KNOWN_REFUSALS.get(code_of(error.__cause__ or error))
            if known is not None:
                self._metrics.counter(known, secretConfigId=name).add()
            log.warning(
                "The secret %s cannot be read again: %s. The values read before stay in use; next attempt in %.0f s",
                name,
                self._safe(error, self._references),
                interval_s,
            )
            return None
        finally:
            span_s = self._clock.monotonic() - begin
            self._metrics.timer("secretsRefreshDuration", secretConfigId=name).observe(span_s)
        self._metrics.counter("secretsRefreshSuccess", secretConfigId=name).add()
        return values

    async def _use(self, values: dict[Reference, str]) -> None:
        references = replace(self._references, values={**self._references.values, **values})
        try:
            await self._hand_on(references)
        except Exception as error:  # noqa: BLE001 (the pipelines go on whatever it is, and the log tells)
            log.error("New values of secrets cannot be used: %s", self._safe(error, references))
        self._references = references

    async def _hand_on(self, references: References) -> None:
        """Give what depends on a value that has changed its new options."""
        renewals: list[tuple[_User, Any]] = []
        for user in self._users:
            changed = user.changed(references.values)
            if not changed:
                continue
            sink = None if user.sink is None else self._sinks.get((user.pipeline, user.sink))
            options = {option for option, _ in changed}
            if options <= getattr(sink, "renewable", frozenset()):
                renewals.append((user, sink))
                continue
            user.values.update(references.values)
            log.warning(
                "%s of %s depends on %s, which has a new value: a restart is needed to use it",
                ", ".join(sorted(options)),
                user.plugin.path,
                ", ".join(sorted({str(reference) for _, reference in changed})),
            )
        if renewals:
            plan = self._renewal.make(references)
            await asyncio.gather(*(self._renew(user, sink, plan, references) for user, sink in renewals))

    async def _renew(self, user: _User, sink: Any, plan: Plan, references: References) -> None:
        made = next((pipeline for pipeline in plan.pipelines if pipeline.name == user.pipeline), None)
        try:
            if made is None or user.sink is None:
                problems = [str(problem) for problem in plan.problems if problem.pipeline in ("", user.pipeline)]
                raise PenstockError("; ".join(problems) or "the pipeline cannot be made with them")
            await sink.renew(made.sinks[user.sink].plugin.config)
        except Exception as error:  # noqa: BLE001 (the sink goes on as before, and the log tells)
            log.warning(
                "New values of secrets cannot be used by %s: %s. Those before stay in use",
                user.plugin.path,
                self._safe(error, references),
            )
            return
        user.values.update(references.values)
        log.info("%s goes on with new values of its secrets", user.plugin.path)

    def _safe(self, error: Exception, references: References) -> str:
        """The message of an error without values, old or new."""
        text = str(error) if isinstance(error, PenstockError) else f"{type(error).__name__}: {error}"
        return self._references.mask(references.mask(text))
