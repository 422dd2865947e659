"""Ports that units share and nobody else gets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from penstock.runtime.units.ports import Ports


@pytest.fixture
def ports() -> Iterator[Ports]:
    held = Ports()
    yield held
    held.close()


def listen(port: int, *, shared: bool = True, host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((host, port))
        sock.listen()
    except BaseException:
        sock.close()
        raise
    return sock


def test_all_units_get_the_same_free_port_again_and_again(ports: Ports) -> None:
    port = ports.reserve("logs", "127.0.0.1", 0)
    assert port > 0
    assert ports.reserve("logs", "127.0.0.1", 0) == port
    assert ports.reserve("other", "127.0.0.1", 0) != port
    with listen(port), listen(port):
        assert ports.reserve("logs", "127.0.0.1", 0) == port


def test_a_connection_goes_to_a_unit_and_never_to_the_one_that_only_holds_the_port(ports: Ports) -> None:
    port = ports.reserve("logs", "", 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    with listen(port, host="0.0.0.0") as unit:
        for _ in range(20):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            unit.settimeout(5)
            unit.accept()[0].close()


def test_a_port_that_another_one_has_is_refused(ports: Ports) -> None:
    for shared in (False, True):  # a stranger who shares his port is one, too
        with listen(0, shared=shared) as stranger, pytest.raises(OSError, match="in use"):
            ports.reserve("logs", "127.0.0.1", stranger.getsockname()[1])
    port = ports.reserve("logs", "127.0.0.1", 0)
    with pytest.raises(OSError, match="in use"):
        ports.reserve("other", "127.0.0.1", port)
    with pytest.raises(OSError, match="in use"):
        listen(port, shared=False)
    second = Ports()
    with pytest.raises(OSError, match="in use"):
        second.reserve("logs", "127.0.0.1", port)
    second.close()


def test_a_port_is_free_again_after_the_end() -> None:
    ports = Ports()
    port = ports.reserve("logs", "127.0.0.1", 0)
    with listen(port) as unit:
        client = socket.create_connection(("127.0.0.1", port), timeout=5)
        unit.accept()[0].close()  # leaves a connection that the system remembers for a while
        client.close()
    ports.close()
    again = Ports()
    assert again.reserve("logs", "127.0.0.1", port) == port
    again.close()
