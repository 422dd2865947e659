"""What became of each event, and what was promised about it. Every broken promise is written down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from penstock.runtime.dead_letters import DeadLetter
from penstock.testing.simulation.flow import destinations, number_of, part_id, sinks_of
from penstock.testing.simulation.scenario import FAILURES, Event, Scenario

VIOLATIONS_MAX = 20
SINKS = {"opensearch": "opensearch", "noop": "write"}
"""Names of the sinks in the pipelines and what they are in the scenario; all other plugins are processors."""


class Ledger:
    """The durable truth of a world. Nothing in it belongs to the engine."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.violations: list[str] = []
        self.settled: Counter[tuple[str, str]] = Counter()
        """How often the server has carried out (or found done) an item, by sink and token."""
        self.newest: dict[tuple[str, str], int] = {}
        """Newest version that was carried out, by sink and document id."""
        self.refused: set[tuple[str, str]] = set()
        """Items that are dead letters, by sink and token."""
        self.refused_ids: set[tuple[str, str]] = set()
        self.deleted: set[str] = set()
        """Indexes that went away once: what they hold says nothing any more."""
        self.parked: set[tuple[str, str]] = set()
        """Events that a processor threw at, by pipeline and token; with the pipeline `source-<n>`, by their source."""
        self.letters_lost: set[str] = set()
        """Tokens of dead letters that could not be written at least once."""
        self.told: set[int] = set()
        """Events that their source was told are done."""
        self.excused: set[int] = set()
        """Events that were taken without a promise and lost with the process."""
        self.taken_back: set[int] = set()
        """Events whose source heard a no at least once."""
        self.disturbed = False
        """Whether anything happened after which events may be brought again: a crash, a stop, a no."""
        self._attempts: Counter[tuple[str, str, int, int]] = Counter()
        self._carried: dict[tuple[str, str], tuple[int, int]] = {}
        self._reasons: dict[tuple[str, str], str] = {}
        self._retries = {
            sink.name: sink.max_retries for spec in scenario.pipelines for sink in spec.sinks if sink.kind != "pipeline"
        }
        self._events = {event.number: (root, event) for root, events in enumerate(scenario.events) for event in events}
        self._roots = {spec.root: spec for spec in scenario.pipelines if spec.source is not None}

    def violate(self, text: str) -> None:
        """A promise is broken."""
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(text)

    def event(self, number: int) -> Event:
        return self._events[number][1]

    def root_of(self, number: int) -> int:
        """The source an event comes from."""
        return self._events[number][0]

    def was_lost(self, number: int) -> bool:
        """Whether a dead letter of the event could not be written: without a promise nobody brings it again."""
        return any(number_of(token) == number for token in self.letters_lost)

    # what the servers see

    def check_order(self, sink: str, id_: str, round_: int, version: int) -> None:
        """An operation is on its way. What was brought in order is not to be carried out in another one.

        When the promise of the newer one was taken back it comes again, behind the older one; when it became a dead
        letter, the older one stands again.
        """
        if (sink, id_) in self.refused_ids:
            return
        last = self._carried.get((sink, id_), (-1, 0))
        if (round_, version) < last and last[1] - 1 not in self.taken_back:
            self.violate(f"{sink}/{id_}: version {version} of round {round_} was sent after {last[1]} of {last[0]}")

    def carried_out(self, sink: str, id_: str | None, document: dict[str, Any]) -> None:
        """The server has written a document."""
        if id_ is not None:
            self._carried[sink, id_] = (document["round"], document["version"])
        failure = document.get("_failure_metadata")
        if failure is None:
            return
        for token in document["tokens"]:  # the failure pipeline stands for the dead letters
            if failure["pluginName"] not in SINKS:
                self.parked.add((failure["pipelineName"], token))
                continue
            index, sinks = failure.get("index"), self._sinks_of(failure["pipelineName"], failure["pluginName"])
            for name in [index] if index else sinks:
                self._refuse(name, token, str(failure["errorMessage"]))

    def settle(self, sink: str, tokens: Iterable[str]) -> None:
        """The server has carried these out."""
        for token in tokens:
            self.settled[sink, token] += 1
            event = self.event(number_of(token))
            key = sink, part_id_of(event, token)
            self.newest[key] = max(self.newest.get(key, 0), event.number + 1)

    def retryable(self, sink: str, token: str, round_: int, life: int) -> None:
        """The server has told the client to try again."""
        key = sink, token, round_, life
        self._attempts[key] += 1
        limit = self._retries.get(sink)
        if limit is not None and self._attempts[key] > limit:
            self.violate(f"{sink}: {token} was answered 'again' {self._attempts[key]} times, max_retries is {limit}")

    def will_refuse(self, sink: str, token: str, reason: str) -> None:
        """The server has refused an item for good; its dead letter has to say so."""
        self._reasons[sink, token] = reason

    def forget_reason(self, sink: str, tokens: Iterable[str]) -> None:
        """The last answer about these was no refusal: a dead letter may have another reason now."""
        for token in tokens:
            self._reasons.pop((sink, token), None)

    # dead letters

    def buried(self, letters: Sequence[DeadLetter]) -> None:
        """Dead letters were kept."""
        for letter in letters:
            data = letter.to_object()["failedData"]
            if not data.get("message"):
                self.violate(f"a dead letter without a reason: {data}")
            for token in self.tokens_of(data):
                if letter.plugin_name not in SINKS:
                    self.parked.add((letter.pipeline_name, token))
                    continue
                for sink in (
                    [data["index"]] if data.get("index") else self._sinks_of(letter.pipeline_name, letter.plugin_name)
                ):
                    self._refuse(sink, token, str(data.get("message")))

    def tokens_of(self, data: dict[str, Any]) -> list[str]:
        """Which events a dead letter is about."""
        document = data.get("document") or {}
        if "tokens" in document:
            return list(document["tokens"])
        version, id_ = data.get("version"), str(data.get("indexId"))
        if version is None:
            self.violate(f"a dead letter that says nothing of its event: {data}")
            return []
        _, _, path = id_.partition("~")
        return [f"{int(version) - 1}/{path}" if path else str(int(version) - 1)]

    def _sinks_of(self, pipeline: str, plugin: str) -> list[str]:
        """The sinks that may have refused an event, where the dead letter names no index."""
        return [sink.name for sink in self.scenario.pipeline(pipeline).sinks if sink.kind == SINKS[plugin]]

    def _refuse(self, sink: str, token: str, message: str) -> None:
        reason = self._reasons.pop((sink, token), None)
        if reason is not None and reason not in message and "Number of retries reached" not in message:
            self.violate(f"{sink}: the dead letter of {token} says {message!r} instead of {reason!r}")
        self.refused.add((sink, token))
        self.refused_ids.add((sink, part_id_of(self.event(number_of(token)), token)))
        if sink == FAILURES:
            self.parked |= {(spec.name, token) for spec in self.scenario.pipelines}

    # what the sources hear

    def is_told(self, numbers: Iterable[int]) -> None:
        """A source was told that these events are done: from now on they are nobody else's."""
        for number in numbers:
            self.told.add(number)
            self.check_arrived(number)

    def park_at_source(self, number: int) -> None:
        """A source has given up on an event after having brought it again several times."""
        self.told.add(number)
        self.excused.add(number)

    def check_arrived(self, number: int) -> None:
        """An event that is done has arrived wherever it has to, or its dead letter is kept."""
        if number in self.excused:
            return
        for sink, token in self._destinations(number):
            if not self.settled[sink, token] and not self._superseded(sink, token):
                self.violate(f"event {number} is done, but {token} has not arrived at {sink}")

    def _superseded(self, sink: str, token: str) -> bool:
        """With ids a newer operation on the document stands for the older ones."""
        if not self.scenario.ordered:
            return False
        event = self.event(number_of(token))
        return self.newest.get((sink, part_id_of(event, token)), 0) > event.number + 1

    def _destinations(self, number: int) -> list[tuple[str, str]]:
        root, event = self._events[number]
        return list(
            destinations(
                self.scenario,
                self._roots[root],
                str(number),
                event.n,
                lambda pipeline, token: (pipeline, token) in self.parked,
                lambda sink, token: (sink, token) in self.refused,
            )
        )

    # at the end

    def check_end(self, versions: dict[str, dict[str, int]]) -> None:
        """All is said and done. `versions`: the version each document of each index has, deleted ones included."""
        for number in self._events:
            if number not in self.told:
                self.violate(f"the source never heard of event {number}")
            self.check_arrived(number)
        if self.scenario.ordered:
            self._check_newest(versions)
        if not self.disturbed and (self.scenario.profile == "calm" or self.scenario.profile == "busy"):
            self._check_once()

    def _check_newest(self, versions: dict[str, dict[str, int]]) -> None:
        given_up: set[str] = set()
        in_part: dict[str, set[str]] = {}
        if self.scenario.ids == "plain":  # without versions anything may be last where older ones come again alone
            given_up = {self.event(number).id for number in self.excused}
            in_part = self._read_again_in_part()
        for (sink, id_), newest in self.newest.items():
            if sink == FAILURES or sink not in versions or sink in self.deleted or (sink, id_) in self.refused_ids:
                continue
            root = id_.partition("~")[0]
            if root in given_up or root in in_part.get(sink, ()):
                continue
            found = versions[sink].get(id_, 0)
            if found != newest:
                self.violate(f"{sink}/{id_} has version {found} in the end, the newest delivered is {newest}")

    def _read_again_in_part(self) -> dict[str, set[str]]:
        """By sink, the ids whose older versions it may get again without the newest: the sink before refused that."""
        found: dict[str, set[str]] = {}
        for spec in self.scenario.pipelines:
            for sink in spec.sinks:
                refused = {id_.partition("~")[0] for name, id_ in self.refused_ids if name == sink.name}
                if sink.forward is not None and refused:
                    for name in sinks_of(self.scenario, self.scenario.pipeline(sink.forward)):
                        found.setdefault(name, set()).update(refused)
        return found

    def _check_once(self) -> None:
        expected: Counter[tuple[str, str]] = Counter()
        for number in self._events:
            expected.update(self._destinations(number))
        for place in expected.keys() | self.settled.keys():
            count, wanted = self.settled[place], expected[place]
            if self.scenario.ordered and count < wanted:
                continue  # a newer operation stands for it
            if count != wanted and place[0] != FAILURES:
                self.violate(f"{place[1]} arrived {count} times at {place[0]} instead of {wanted}")


def part_id_of(event: Event, token: str) -> str:
    """The id of the document that a part of an event goes to."""
    return part_id(event.id, token)
