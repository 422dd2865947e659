"""Pattern files: one `NAME pattern` a line; lines of another form are left out."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

from penstock.plugins.processors.grok.compile import read_definitions

FILE_BYTES_MAX = 4 * 1024 * 1024
ALL_BYTES_MAX = 64 * 1024 * 1024
FILES_MAX = 10_000
GLOBS_MAX = 1_000

_BRACES = re.compile(r"\{([^{}]*)\}")


def read_directories(directories: list[str], glob: str) -> tuple[dict[str, str], list[str]]:
    """The definitions in the files of all directories, a later file wins; and what could not be read, in sentences.

    Patterns that need what could not be read are unknown. Raises `ValueError` beyond a limit.
    """
    definitions: dict[str, str] = {}
    unread: list[str] = []
    wanted = expand_braces(glob)
    bytes_left = ALL_BYTES_MAX
    for directory in directories:
        try:
            names = sorted(path.name for path in Path(directory).iterdir() if path.is_file())
        except (OSError, ValueError) as error:
            unread.append(f"The pattern directory {directory} cannot be read: {error}")
            continue
        chosen = [name for name in names if any(fnmatchcase(name, each) for each in wanted)]
        if len(chosen) > FILES_MAX:
            raise ValueError(f"patterns_directories: {directory} has more than {FILES_MAX} pattern files")
        for name in chosen:
            path = Path(directory, name)
            try:
                data = _read_file(path)
            except OSError as error:
                unread.append(f"The pattern file {path} cannot be read: {error}")
                continue
            bytes_left -= len(data)
            if bytes_left < 0:
                raise ValueError(f"patterns_directories: the pattern files have more than {ALL_BYTES_MAX} bytes")
            definitions |= read_definitions(data.decode("utf-8", "replace").splitlines())
    return definitions, unread


def expand_braces(glob: str) -> list[str]:
    """The globs that `*.{a,b}` stands for. Raises `ValueError` for more than `GLOBS_MAX`."""
    globs = [glob]
    while found := _BRACES.search(globs[0]):
        globs = [
            each[: found.start()] + choice + each[found.end() :] for each in globs for choice in found[1].split(",")
        ]
        if len(globs) > GLOBS_MAX:
            raise ValueError(f"patterns_files_glob stands for more than {GLOBS_MAX} globs")
    return globs


def _read_file(path: Path) -> bytes:
    """Raises OSError, and `ValueError` for a file beyond `FILE_BYTES_MAX`."""
    with path.open("rb") as file:
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX:
        raise ValueError(f"The pattern file {path} is larger than {FILE_BYTES_MAX} bytes")
    return data
