"""Ports that all units listen on together.

The supervisor binds each port without listening: nobody else can have it, not even while all units are being started
again, and port 0 is the same for all. The units bind it with SO_REUSEPORT and listen; the system gives each connection
to one of them.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack


class Ports:
    """Holds what was reserved until `close`."""

    def __init__(self) -> None:
        self._held = ExitStack()
        self._reserved: dict[tuple[str, str, int], int] = {}

    def reserve(self, holder: str, host: str, port: int) -> int:
        """The port for `holder`, a pipeline: the same one whenever it asks again.

        Raises OSError when another process, or another pipeline, has it.
        """
        key = (holder, host, port)
        if key not in self._reserved:
            self._reserved[key] = self._bind(host, port)
        return self._reserved[key]

    def close(self) -> None:
        self._held.close()
        self._reserved.clear()

    def _bind(self, host: str, port: int) -> int:
        flags = socket.AI_PASSIVE
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=flags)
        with ExitStack() as bound:
            for family, kind, protocol, _, address in dict.fromkeys(found):
                sock = bound.enter_context(socket.socket(family, kind, protocol))
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                # Alone at first, so that a stranger who shares his port is found out; closed connections do not count.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((address[0], port, *address[2:]))
                port = sock.getsockname()[1]
                # From now on for those who share, and for nobody who merely does not mind old connections.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            self._held.push(bound.pop_all())
        return port
