"""What the services need is fetched once and kept in a folder; two processes never fetch the same thing at once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

_READY = ".ready"


def cache_folder() -> Path:
    """Where fetched parts and logs are kept.

    `PENSTOCK_CACHE_DIR` when set, `.cache` of the project when Penstock runs from its checkout, else the user's cache.
    """
    if chosen := os.environ.get("PENSTOCK_CACHE_DIR"):
        return Path(chosen).expanduser().absolute()
    project = Path(__file__).resolve().parents[4]
    if (project / "pyproject.toml").is_file() and (project / "src" / "penstock").is_dir():
        return project / ".cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "penstock"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "penstock"


def made_once(
    name: str,
    recipe: str,
    make: Callable[[Path], None],
    *,
    still_good: Callable[[Path], bool] = lambda _folder: True,
) -> Path:
    """The folder that `make` filled, now or in an earlier run with the same `recipe`.

    The folder is made at its final place, since virtual environments cannot be moved; a mark written last tells a
    finished one from one that was interrupted. `still_good` may refuse a finished one, which is then made again.
    """
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:10]
    services = cache_folder() / "services"
    services.mkdir(parents=True, exist_ok=True)
    folder = services / f"{name}-{digest}"
    if _finished(folder, still_good):
        return folder
    with (services / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released with the file, also when this process is killed
        if _finished(folder, still_good):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        make(folder)
        (folder / _READY).touch()
    return folder


def _finished(folder: Path, still_good: Callable[[Path], bool]) -> bool:
    return (folder / _READY).is_file() and still_good(folder)
