"""Did you mean …? The nearest name by edit distance."""

from __future__ import annotations

from collections.abc import Iterable

DISTANCE_MAX = 3
"""Names farther away than this many edits are no help."""


def closest(name: str, candidates: Iterable[str], distance_max: int = DISTANCE_MAX) -> str | None:
    """The candidate with the fewest edits from `name`, the first of equals; None when all are too far away."""
    best, best_distance = None, distance_max + 1
    for candidate in candidates:
        if abs(len(candidate) - len(name)) >= best_distance:
            continue
        distance = edit_distance(name, candidate)
        if distance < best_distance:
            best, best_distance = candidate, distance
    return best


def edit_distance(left: str, right: str) -> int:
    """Insertions, deletions, replacements and swaps of neighbours that make one text the other."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        after = [i]
        for j, b in enumerate(right, 1):
            cost = min(row[j] + 1, after[j - 1] + 1, row[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                cost = min(cost, before[j - 2] + 1)
            after.append(cost)
        before, row = row, after
    return row[-1]
