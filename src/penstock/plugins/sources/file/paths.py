"""Which files are meant: names and patterns, and the ones to leave out."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path


class Paths:
    """Patterns of files to read. `find` looks at the disk."""

    def __init__(self, patterns: Sequence[str], excluded: Sequence[str]) -> None:
        self._patterns = [str(Path(pattern).absolute()) for pattern in patterns]
        self._excluded = [re.compile(_translated(str(Path(pattern).absolute()))) for pattern in excluded]

    def find(self) -> list[Path]:
        """The files there are now, each once, in the order of the patterns and their names."""
        found: dict[Path, None] = {}
        for pattern in self._patterns:
            names = [pattern]
            if glob.has_magic(pattern):
                names = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (paths take no absolute patterns)
            for name in names:
                path = Path(name)
                if not self._leaves_out(name) and path.is_file():
                    found[path] = None
        return list(found)

    def missing(self) -> list[str]:
        """Names without `*` and the like that are no files."""
        return [name for name in self._patterns if not glob.has_magic(name) and not Path(name).is_file()]

    def _leaves_out(self, name: str) -> bool:
        return any(pattern.fullmatch(name) for pattern in self._excluded)


def _translated(pattern: str) -> str:
    """The regular expression of a pattern: `*` and `?` stay within a folder, `**` stands for any folders."""
    parts: list[str] = []
    position = 0
    while position < len(pattern):
        if pattern.startswith("**/", position):
            parts.append("(?:.*/)?")
            position += 3
        elif pattern.startswith("**", position):
            parts.append(".*")
            position += 2
        elif pattern[position] == "*":
            parts.append("[^/]*")
            position += 1
        elif pattern[position] == "?":
            parts.append("[^/]")
            position += 1
        elif pattern[position] == "[" and (end := pattern.find("]", position + 2)) > 0:
            inner = pattern[position + 1 : end].replace("\\", "\\\\")
            parts.append("[" + ("^" + inner[1:] if inner[:1] == "!" else inner) + "]")
            position = end + 1
        else:
            parts.append(re.escape(pattern[position]))
            position += 1
    return "(?s:" + "".join(parts) + ")"
