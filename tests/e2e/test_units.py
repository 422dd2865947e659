"""`penstock run --units 2`: one port, one set of leases, one admin endpoint; a unit that dies costs only time."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import threading

import psutil
import pytest
from client import Client
from engine import wait_until

from penstock.lib.lease import is_dead
from penstock.testing.services import free_port

LOGS = """\
version: "2"
logs:
  source: {http: {port: PORT, acknowledgments: ACKNOWLEDGMENTS}}
  sink: [{opensearch: {hosts: ["URL"], index: NAME}}]
"""
TABLES = """\
version: "2"
mirror:
  source:
    dynamodb:
      acknowledgments: true
      tables: [TABLES]
      aws: {region: us-east-1}
  sink:
    - opensearch:
        hosts: ["URL"]
        index: NAME
        document_id: '${getMetadata("primary_key")}'
        action: '${getMetadata("opensearch_action")}'
        document_version: '${getMetadata("document_version")}'
        document_version_type: external
"""
TWO = ("--units", "2")


class Sender(threading.Thread):
    """Sends numbered events over one connection after the other, until nobody listens any more."""

    def __init__(self, port, numbers):
        super().__init__(daemon=True)
        self.connections = []
        """What each connection had accepted, and whether it was cut off."""
        self._port, self._numbers = port, numbers

    def run(self):
        while True:
            accepted = []
            self.connections.append(record := {"accepted": accepted, "cut": False})
            try:
                with Client(self._port) as client:
                    while True:
                        chunk = [next(self._numbers) for _ in range(5)]
                        status, text = client.post([{"n": number} for number in chunk])
                        if status == 200:
                            accepted += chunk
                        else:
                            assert status == 503, (status, text)
                            break
            except ConnectionRefusedError:
                return
            except (OSError, http.client.HTTPException):
                record["cut"] = True


class Numbers:
    def __init__(self):
        self._lock, self._next = threading.Lock(), 0

    def __next__(self):
        with self._lock:
            self._next += 1
            return self._next


@pytest.fixture
def load():
    """`load(port)` → senders at work."""
    senders = []

    def start(port, count=12):
        numbers = Numbers()
        senders.extend(Sender(port, numbers) for _ in range(count))
        for sender in senders:
            sender.start()
        return senders

    yield start
    for sender in senders:
        sender.join(60)
        assert not sender.is_alive(), "a sender still waits for an answer"


def units(engine):
    return json.loads(engine.ask("GET", "/status")[1])["units"]


def wait_units(engine, crashes=0):
    def there():
        found = units(engine)
        return all(unit["state"] == "RUNNING" for unit in found) and sum(unit["crashes"] for unit in found) >= crashes

    wait_until(there, "all units to run")
    engine.wait_ready()
    return units(engine)


def accepted(senders):
    return sum(len(connection["accepted"]) for sender in senders for connection in sender.connections)


def connections(process, port):
    return [
        found
        for found in psutil.Process(process).net_connections("tcp")
        if found.status == psutil.CONN_ESTABLISHED and found.laddr.port == port
    ]


@pytest.mark.parametrize("acknowledgments", ["false", "true"])
def test_a_killed_unit_takes_nothing_of_the_others_with_it(
    opensearch, fault_proxy, start_engine, numbers, prefix, load, acknowledgments
):
    index, port = prefix + "events", free_port()
    proxy = fault_proxy(opensearch.url)
    yaml = LOGS.replace("PORT", str(port)).replace("ACKNOWLEDGMENTS", acknowledgments)
    engine = start_engine(yaml.replace("URL", proxy.url).replace("NAME", index), arguments=TWO)
    first, second = wait_units(engine)
    proxy.delay(0.05, path="/_bulk")  # so that much is on its way when the end comes
    senders = load(port)
    wait_until(lambda: accepted(senders) > 1000, "some load")
    wait_until(lambda: connections(first["process"], port) and connections(second["process"], port), "load on both")
    os.kill(second["process"], signal.SIGKILL)
    engine.wait_log("Unit 2 was killed by SIGKILL; it is started again in 0.5 s")
    _, again = wait_units(engine, crashes=1)
    assert again["process"] != second["process"]
    for sender in senders:  # connections that stay open stay where they are; new ones reach the new unit
        assert sender.is_alive()
    clients = [Client(port) for _ in range(20)]
    for client in clients:
        assert client.post([{"n": 0}])[0] == 200
    assert connections(again["process"], port), "the unit that was started again takes part"
    for client in clients:
        client.close()
    before = accepted(senders)
    wait_until(lambda: accepted(senders) > before + 500, "more load")
    engine.stop()
    for sender in senders:
        sender.join(60)
    found = numbers(index)
    assert found.count(0) == 20
    sent = [number for number in found if number]
    assert len(sent) == len({*sent}), "delivered twice"
    cut = 0
    for sender in senders:
        for connection in sender.connections:
            cut += connection["cut"]
            if not connection["cut"] or acknowledgments == "true":
                assert set(connection["accepted"]) <= {*sent}, "accepted and lost"
    assert cut, "some connections were those of the killed unit"


def test_units_have_one_admin_endpoint_and_one_port(opensearch, start_engine, prefix):
    yaml = LOGS.replace("PORT", "0").replace("ACKNOWLEDGMENTS", "false").replace("URL", opensearch.url)
    engine = start_engine(yaml.replace("NAME", prefix + "events"), arguments=TWO)
    wait_units(engine)
    assert json.loads(engine.ask("GET", "/list")[1]) == {"pipelines": [{"name": "logs"}]}
    pids = [unit["process"] for unit in units(engine)]
    ports = {
        found.laddr.port
        for pid in pids
        for found in psutil.Process(pid).net_connections("tcp")
        if found.status == psutil.CONN_LISTEN
    }
    (port,) = ports
    clients = [Client(port) for _ in range(20)]
    for client in clients:
        assert client.post([{"n": 1}])[0] == 200
    assert all(connections(pid, port) for pid in pids)
    wait_until(
        lambda: engine.meter("logs_opensearch_documentsSuccess_total") == 20, "all events, in both units together"
    )
    assert engine.meter("logs_http_requestsReceived_total") == 20
    assert engine.meter("logs_http_serverConnections") == 20
    assert engine.meter("units_running") == 2
    for client in clients:
        client.close()
    os.kill(pids[0], signal.SIGKILL)
    wait_units(engine, crashes=1)
    assert engine.meter("logs_http_requestsReceived_total") == 20, "counters never fall"
    assert engine.meter("units_restarts_total") == 1
    assert " [unit-1] " in engine.log and " [unit-2] " in engine.log
    assert engine.ask("POST", "/shutdown")[0] == 200
    assert engine.wait() == 0
    engine.check_log()


def test_what_others_have_is_told(opensearch, start_engine, prefix):
    port = free_port()
    yaml = LOGS.replace("PORT", str(port)).replace("ACKNOWLEDGMENTS", "false").replace("URL", opensearch.url)
    yaml = yaml.replace("NAME", prefix + "events")
    first = start_engine(yaml, arguments=TWO)
    wait_units(first)
    second = start_engine(yaml, arguments=TWO)
    assert second.wait() == 1
    assert f"in use by process {first.process.pid}: stop it" in second.log
    third = start_engine(yaml, arguments=TWO, folder="other")
    assert third.wait() == 3
    assert third.log.count(f"port {port} cannot be listened on: Address already in use") == 2
    for engine in (second, third):
        engine.check_log()
    first.stop()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        fourth = start_engine(yaml, arguments=TWO, folder="other")
        assert fourth.wait() == 3
    start_engine(yaml, folder="other").wait_ready().stop()


def test_units_end_when_their_supervisor_is_gone(opensearch, start_engine, numbers, prefix):
    port = free_port()
    yaml = LOGS.replace("PORT", str(port)).replace("ACKNOWLEDGMENTS", "false").replace("URL", opensearch.url)
    yaml = yaml.replace("NAME", prefix + "events")
    engine = start_engine(yaml, arguments=TWO)
    pids = [unit["process"] for unit in wait_units(engine)]
    with Client(port) as client:
        assert client.post([{"n": 7}])[0] == 200
    engine.kill()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids), "the units to end")
    assert engine.log.count("The supervisor is gone: draining what is under way") == 2
    assert numbers(prefix + "events") == [7]
    engine.check_log()
    start_engine(yaml, arguments=TWO).wait_ready().stop()


def test_a_restart_waits_for_the_units_of_a_run_that_was_killed(opensearch, fault_proxy, start_engine, numbers, prefix):
    proxy = fault_proxy(opensearch.url)
    port = free_port()
    yaml = LOGS.replace("PORT", str(port)).replace("ACKNOWLEDGMENTS", "false").replace("URL", proxy.url)
    yaml = yaml.replace("NAME", prefix + "events")
    killed = start_engine(yaml, arguments=TWO)
    wait_units(killed)
    proxy.answer(503, "{}", path="/_bulk")
    with Client(port) as client:
        assert client.post([{"n": 7}])[0] == 200
    killed.kill()
    restarted = start_engine(yaml, arguments=TWO)
    restarted.wait_log(f"Process {killed.process.pid} has ended; waiting for its units")
    proxy.heal()
    restarted.wait_ready()
    assert numbers(prefix + "events") == [7]
    restarted.stop()
    restarted.check_log()


def test_a_second_signal_stops_all_units_at_once(opensearch, fault_proxy, start_engine, prefix):
    proxy = fault_proxy(opensearch.url)
    port = free_port()
    yaml = LOGS.replace("PORT", str(port)).replace("ACKNOWLEDGMENTS", "false").replace("URL", proxy.url)
    engine = start_engine(yaml.replace("NAME", prefix + "events"), arguments=TWO)
    pids = [unit["process"] for unit in wait_units(engine)]
    proxy.answer(503, "{}", path="/_bulk")
    for _ in range(8):
        with Client(port) as client:
            assert client.post([{"n": 1}])[0] == 200
    engine.signal(signal.SIGINT)
    engine.wait_log("A second signal stops at once")
    engine.signal(signal.SIGINT)
    assert engine.wait() == 130
    assert not any(psutil.pid_exists(pid) for pid in pids)
    engine.check_log()


def test_units_share_the_shards_of_tables_and_take_over_from_one_that_was_killed(
    opensearch, dynamodb_local, aws_client, start_engine, prefix, ask
):
    index = prefix + "mirror"
    dynamodb = aws_client("dynamodb", dynamodb_local.url)
    tables = [f"{prefix}t{number}" for number in range(2)]
    for table in tables:
        dynamodb.create_table(
            TableName=table,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )
    arns = [
        f"{{table_arn: 'arn:aws:dynamodb:us-east-1:123456789012:table/{table}', stream: {{start_position: LATEST}}}}"
        for table in tables
    ]
    yaml = TABLES.replace("TABLES", ", ".join(arns)).replace("URL", opensearch.url).replace("NAME", index)
    endpoints = {f"AWS_ENDPOINT_URL_{name}": dynamodb_local.url for name in ("DYNAMODB", "DYNAMODB_STREAMS")}
    engine = start_engine(yaml, environ=endpoints, arguments=TWO)
    wait_units(engine)
    expected, stop = {}, threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            for table in tables:
                key = f"{table}-{number % 150}"
                dynamodb.put_item(TableName=table, Item={"id": {"S": key}, "n": {"N": str(number)}})
                expected[key] = number
            number += 1

    def documents():
        assert ask(opensearch.url, "POST", f"/{index}/_refresh")[0] == 200
        hits = ask(opensearch.url, "GET", f"/{index}/_search?size=10000")[1]["hits"]["hits"]
        return {hit["_id"]: hit["_source"]["n"] for hit in hits}

    def owners():
        import sqlite3

        with sqlite3.connect(f"file:{engine.data_dir / 'leases.db'}?mode=ro", uri=True) as leases:
            query = "SELECT owner FROM lease WHERE source = 'mirror|STREAM' AND status = 'ASSIGNED'"
            found = [owner for (owner,) in leases.execute(query)]
        leases.close()
        return found

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        wait_until(lambda: len(documents()) > 100, "the first documents")
        for _ in range(2):
            wait_until(lambda: owners() and not any(map(is_dead, owners())), "all shards to be read")
            victim = next(unit for unit in units(engine) if any(f":{unit['process']}:" in owner for owner in owners()))
            crashes = sum(unit["crashes"] for unit in units(engine))
            os.kill(victim["process"], signal.SIGKILL)
            wait_until(
                lambda: owners() and not any(map(is_dead, owners())), "the shards to be taken over", timeout_s=15
            )
            wait_units(engine, crashes=crashes + 1)
    finally:
        stop.set()
        writer.join(30)
    wait_until(lambda: documents() == expected, "the index to equal the tables")
    engine.stop()
    assert documents() == expected
