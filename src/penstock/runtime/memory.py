"""How the process takes memory from the system and gives it back."""

from __future__ import annotations

import sys

_MMAP_THRESHOLD = -3
_TRIM_THRESHOLD = -1
_LARGE_BYTES = 1024 * 1024
_KEPT_BYTES = 8 * 1024 * 1024


def give_back_large_blocks() -> None:
    """Let glibc return large blocks as soon as they are free; elsewhere nothing happens.

    It raises both thresholds by itself, up to 32 and 64 MB, with each large block that is freed. Bodies of requests are
    such blocks: what they once took would stay with the process, with holes that nothing fits into.
    """
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
