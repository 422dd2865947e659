"""Pattern files: one `NAME pattern` a line; lines of another form are left out."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from logging import Logger
from pathlib import Path

from penstock import sdk
from penstock.plugins.processors.grok.compile import read_definitions

FILE_BYTES_MAX = 4 * 1024 * 1024
FILES_MAX = 10_000
GLOBS_MAX = 1_000

_BRACES = re.compile(r"\{([^{}]*)\}")


def read_directories(directories: list[str], glob: str, log: Logger) -> dict[str, str]:
    """The definitions in the files of all directories; a later file wins.

    A directory or file that cannot be read is logged and left out: patterns that need it are reported as unknown.
    Raises `ConfigError` for a file beyond `FILE_BYTES_MAX`.
    """
    definitions: dict[str, str] = {}
    wanted = expand_braces(glob)
    for directory in directories:
        try:
            names = sorted(path.name for path in Path(directory).iterdir() if path.is_file())
        except OSError as error:
            log.error("The pattern directory %s cannot be read: %s", directory, error)
            continue
        chosen = [name for name in names if any(fnmatchcase(name, each) for each in wanted)]
        if len(chosen) > FILES_MAX:
            raise sdk.ConfigError(f"patterns_directories: {directory} has more than {FILES_MAX} pattern files")
        for name in chosen:
            definitions |= _read_file(Path(directory, name), log)
    return definitions


def expand_braces(glob: str) -> list[str]:
    """The globs that `*.{a,b}` stands for. Raises `ConfigError` for more than `GLOBS_MAX`."""
    globs = [glob]
    while found := _BRACES.search(globs[0]):
        globs = [
            each[: found.start()] + choice + each[found.end() :] for each in globs for choice in found[1].split(",")
        ]
        if len(globs) > GLOBS_MAX:
            raise sdk.ConfigError(f"patterns_files_glob stands for more than {GLOBS_MAX} globs")
    return globs


def _read_file(path: Path, log: Logger) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        log.error("The pattern file %s cannot be read: %s", path, error)
        return {}
    if len(data) > FILE_BYTES_MAX:
        raise sdk.ConfigError(f"The pattern file {path} is larger than {FILE_BYTES_MAX} bytes")
    return read_definitions(data.decode("utf-8", "replace").splitlines())
