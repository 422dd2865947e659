"""What a bulk sink says of the items that it could not write, put together where it is the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, overload

from penstock.core.errors import Failure


class Failures(Sequence[Failure]):
    """Failures of which many are alike: an overloaded server makes very many of them."""

    def __init__(self, groups: Sequence[tuple[Sequence[int], Failure]]) -> None:
        self.groups = groups
        """Places, which ascend, and what is true of the items there; the index of the failure means nothing."""

    @classmethod
    def of(cls, failures: Sequence[Failure]) -> Failures:
        """The same failures, those alike put together."""
        if isinstance(failures, Failures):
            return failures
        groups: dict[Any, tuple[list[int], Failure]] = {}
        for failure in sorted(failures, key=attrgetter("index")):
            alike = (failure.reason, failure.retryable, failure.status, failure.retry_after_s, failure.counts)
            key = (alike, id(failure) if failure.details else 0)
            groups.setdefault(key, ([], failure))[0].append(failure.index)
        return cls(list(groups.values()))

    def check(self, count: int) -> None:
        """Raise `ValueError` unless these can be failures of so many items: each once, in order."""
        named: set[int] = set().union(*[places for places, _ in self.groups])
        in_order = all([list(places) == sorted(places) for places, _ in self.groups])
        if len(named) < len(self) or not in_order or (named and not 0 <= min(named) <= max(named) < count):
            raise ValueError(f"these are no failures of {count} items: {[list(places) for places, _ in self.groups]}")

    def moved(self, places: Sequence[int]) -> Failures:
        """The same of the items that have these places, one for each of those before."""
        return Failures([([places[at] for at in group], failure) for group, failure in self.groups])

    def __len__(self) -> int:
        return sum([len(places) for places, _ in self.groups])

    def __iter__(self) -> Iterator[Failure]:
        failures = [failure.at(place) for places, failure in self.groups for place in places]
        return iter(sorted(failures, key=attrgetter("index")))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, number: int) -> Failure: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[Failure]: ...

    def __getitem__(self, number: int | slice) -> Failure | Sequence[Failure]:
        return list(self)[number]
