"""The end of `penstock run`: what was accepted is delivered, exactly once, and the exit code says how it went."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from client import Client
from engine import wait_until

from penstock.testing.services import free_port

ONE = """\
version: "2"
one:
  source: {http: {port: PORT}}
  sink: [{opensearch: {hosts: ["URL"], index: NAME}}]
"""
CHAIN = """\
version: "2"
front:
  source: {http: {port: PORT}}
  sink: [{pipeline: {name: middle}}]
middle:
  source: front
  processor: [{add_entries: {entries: [{key: seen, value: true}]}}]
  sink: [{pipeline: {name: back}}]
back:
  source: middle
  sink: [{opensearch: {hosts: ["URL"], index: NAME}}]
"""


class Load:
    """Clients that send numbered events, each number once, until they are refused."""

    def __init__(self, port: int, connections: int = 4, size: int = 10) -> None:
        self.accepted: set[int] = set()
        self.sent: set[int] = set()
        self.refusals: list[object] = []
        self._port, self._size = port, size
        self._next = 0
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(connections)]

    def start(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def join(self) -> None:
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a client still waits for an answer"

    def _send(self) -> None:
        with Client(self._port) as client:
            while True:
                with self._lock:
                    numbers = range(self._next, self._next + self._size)
                    self._next = numbers.stop
                    self.sent.update(numbers)
                try:
                    status, text = client.post([{"n": number} for number in numbers])
                except (OSError, http.client.HTTPException) as error:
                    self.refusals.append(error)
                    return
                if status != 200:
                    self.refusals.append((status, text))
                    return
                with self._lock:
                    self.accepted.update(numbers)


def check(load, found):
    """Every accepted event is there, none twice, and nothing that nobody sent."""
    assert len(load.accepted) > 100
    assert load.accepted - set(found) == set(), "accepted and lost"
    assert len(found) == len(set(found)), "delivered twice"
    assert set(found) <= load.sent


@pytest.mark.parametrize("pipelines", [ONE, CHAIN], ids=["one pipeline", "three in a row"])
@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "POST /shutdown"])
def test_a_stop_under_load_loses_nothing_and_repeats_nothing(
    opensearch, fault_proxy, start_engine, numbers, prefix, pipelines, how
):
    index = prefix + "events"
    proxy = fault_proxy(opensearch.url)
    port = free_port()
    yaml = pipelines.replace("PORT", str(port)).replace("URL", proxy.url).replace("NAME", index)
    engine = start_engine(yaml).wait_ready()
    proxy.delay(0.2, path="/_bulk")  # so that much is on its way when the end comes
    load = Load(port).start()
    wait_until(lambda: len(load.accepted) > 2000, "some load")
    if how.startswith("SIG"):
        engine.signal(signal.Signals[how])
    else:
        assert engine.ask("POST", "/shutdown")[0] == 200
        at_the_answer = numbers(index)
        check(load, at_the_answer)
    load.join()
    assert engine.wait() == 0
    engine.check_log()
    found = numbers(index)
    check(load, found)
    if not how.startswith("SIG"):
        assert found == at_the_answer, "the answer came when everything was drained"
    assert not any(seen.status == 0 for seen in proxy.requests)


def test_a_kill_loses_nothing_that_was_acknowledged(opensearch, fault_proxy, start_engine, numbers, prefix):
    index = prefix + "events"
    proxy = fault_proxy(opensearch.url)
    port = free_port()
    yaml = CHAIN.replace("{port: PORT}", f"{{port: {port}, acknowledgments: true}}")
    engine = start_engine(yaml.replace("URL", proxy.url).replace("NAME", index)).wait_ready()
    proxy.delay(0.05, path="/_bulk")
    load = Load(port, connections=16).start()
    wait_until(lambda: len(load.accepted) > 500, "some load")
    engine.kill()
    load.join()
    check(load, numbers(index))
    engine.check_log()


def test_requests_on_open_connections_are_refused_politely_while_it_drains(
    opensearch, fault_proxy, start_engine, numbers, prefix
):
    proxy = fault_proxy(opensearch.url)
    port = free_port()
    yaml = ONE.replace("PORT", str(port)).replace("URL", proxy.url).replace("NAME", prefix + "events")
    engine = start_engine(yaml).wait_ready()
    proxy.answer(503, "{}", path="/_bulk")
    with Client(port) as client:
        assert client.post([{"n": 1}])[0] == 200
        engine.signal()
        engine.wait_log("Stopping: draining")
        with pytest.raises((OSError, http.client.HTTPException)):
            for _ in range(1000):  # until the signal has reached the server
                assert client.post([{"n": 2}])[0] in (200, 503)
                time.sleep(0.01)
    assert engine.process.poll() is None, "the first event is still on its way"
    proxy.heal()
    assert engine.wait() == 0
    engine.check_log()
    assert 1 in numbers(prefix + "events")


def test_a_stop_before_the_sink_ever_answered_is_quick_and_clean(start_engine, prefix):
    port, nobody = free_port(), free_port()
    yaml = ONE.replace("PORT", str(port)).replace("URL", f"http://127.0.0.1:{nobody}").replace("NAME", prefix + "e")
    engine = start_engine(yaml)
    engine.wait_log("Failed to initialize OpenSearch sink, retrying")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    engine.stop()


def test_a_second_start_on_the_same_data_directory_is_refused(opensearch, start_engine, prefix):
    port = free_port()
    yaml = ONE.replace("PORT", str(port)).replace("URL", opensearch.url).replace("NAME", prefix + "events")
    first = start_engine(yaml).wait_ready()
    second = start_engine(yaml)
    assert second.wait() == 1
    message = (
        f"the data directory {second.data_dir} is in use by process {first.process.pid}: stop it, or choose another "
        "directory with --data-dir"
    )
    assert message in second.log
    second.check_log()
    with Client(port) as client:
        assert client.post([{"n": 1}])[0] == 200
    first.stop()
    third = start_engine(yaml).wait_ready()
    third.kill()
    start_engine(yaml).wait_ready().stop()


def test_a_pipeline_that_fails_leaves_the_others_running(opensearch, start_engine, numbers, prefix):
    index = prefix + "events"
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        yaml = ONE.replace("PORT", str(port)).replace("URL", opensearch.url).replace("NAME", index)
        yaml += f"""\
unlucky:
  source: {{http: {{port: {taken.getsockname()[1]}}}}}
  sink: [{{pipeline: {{name: behind-it}}}}]
behind-it:
  source: unlucky
  sink: [{{noop: }}]
"""
        engine = start_engine(yaml)
        engine.wait_log(r"Pipeline \[unlucky\] failed")
        assert f"port {taken.getsockname()[1]} cannot be listened on: " in engine.log
    wait_until(lambda: engine.status()["one"]["state"] == "RUNNING", "the other pipeline")
    states = {name: pipeline["state"] for name, pipeline in engine.status().items()}
    assert states == {"one": "RUNNING", "unlucky": "FAILED", "behind-it": "FAILED"}
    wait_until(lambda: _accepts(port), "the source of the other pipeline")
    with Client(port) as client:
        assert client.post([{"n": 1}])[0] == 200
    engine.stop(code=3)
    assert 1 in numbers(index)


def test_what_cannot_be_drained_in_time_is_told_by_the_exit_code(opensearch, fault_proxy, start_engine, prefix):
    proxy = fault_proxy(opensearch.url)
    port = free_port()
    yaml = ONE.replace("PORT", str(port)).replace("URL", proxy.url).replace("NAME", prefix + "events")
    engine = start_engine(yaml, arguments=("--drain-timeout", "1")).wait_ready()
    proxy.answer(503, "{}", path="/_bulk")
    with Client(port) as client:
        assert client.post([{"n": n} for n in range(7)])[0] == 200
    engine.stop(code=4)
    assert "Pipeline [one] was shut down with 7 events undelivered" in engine.log


def test_a_second_signal_stops_at_once(opensearch, fault_proxy, start_engine, prefix):
    proxy = fault_proxy(opensearch.url)
    port = free_port()
    yaml = ONE.replace("PORT", str(port)).replace("URL", proxy.url).replace("NAME", prefix + "events")
    engine = start_engine(yaml).wait_ready()
    proxy.answer(503, "{}", path="/_bulk")
    with Client(port) as client:
        assert client.post([{"n": 1}])[0] == 200
    engine.signal()
    engine.wait_log("A second signal stops at once")
    engine.signal()
    assert engine.wait() == 130
    assert "Stopped before everything was drained" in engine.log
    engine.check_log()


def test_an_admin_port_in_use_is_named(start_engine):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        yaml = ONE.replace("PORT", str(free_port())).replace("URL", "http://127.0.0.1:1").replace("NAME", "x")
        engine = start_engine(yaml, config=f"ssl: false\nserver_port: {port}\n")
        assert engine.wait() == 1
    assert f"The admin port {port} cannot be had (" in engine.log
    assert "server_port" in engine.log
    engine.check_log()


def test_an_index_name_that_can_never_be_ends_the_pipeline(opensearch, start_engine):
    yaml = ONE.replace("PORT", str(free_port())).replace("URL", opensearch.url).replace("NAME", '"UPPER"')
    engine = start_engine(yaml)
    assert engine.wait() == 3
    assert "Failed to initialize OpenSearch sink due to a configuration error." in engine.log
    assert "Invalid characters in the index name UPPER" in engine.log
    engine.check_log()


def test_every_exit_code_is_in_the_help():
    shown = subprocess.run(
        [sys.executable, "-m", "penstock.cli", "run", "--help"], capture_output=True, text=True, check=True
    ).stdout
    codes = re.findall(r"(\d+) [a-z]", " ".join(shown.split("Exit codes:")[1].split("Arguments")[0].split()))
    assert codes == ["0", "1", "2", "3", "4", "130"]


def _accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True
