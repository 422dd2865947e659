"""Logs by HTTP through processors to a real OpenSearch: everything arrives, whatever happens to the sink on the way.

Tests are named after the promise in docs/behaviour.md that they prove.
"""

from __future__ import annotations

import json
import re
import threading
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from client import Client, Shippers
from engine import wait_until

from penstock.testing.services import free_port

START = datetime(2026, 3, 1, 23, 50, tzinfo=timezone(timedelta(hours=9)))


def access(number):
    """A line of an access log, and the document it becomes."""
    moment = START + timedelta(seconds=number)
    parts = {
        "clientip": f"10.{number % 256}.{number // 256 % 256}.7",
        "ident": "-",
        "auth": ("-", "alice", "bob")[number % 3],
        "timestamp": f"{moment:%d/%b/%Y:%H:%M:%S %z}",
        "verb": ("GET", "GET", "POST")[number % 3],
        "request": ("/", f"/api/items/{number}?q=ü", "/index.html")[number % 3],
        "httpversion": "1.1",
        "response": (200, 304, 404, 500)[number % 4],
        "bytes": 100 + number,
        "referrer": f"https://example.com/{number}",
        "agent": "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101",
    }
    line = (
        '{clientip} {ident} {auth} [{timestamp}] "{verb} {request} HTTP/{httpversion}" {response} {bytes} '
        '"{referrer}" "{agent}"'
    ).format(**parts)
    return line, {**parts, "log": line, "@timestamp": moment}


class Logs:
    """Pipelines that write to one OpenSearch, with everything named by `prefix`."""

    def __init__(self, start_engine, url, ask, prefix):
        self.url, self.prefix = url, prefix
        self.port = free_port()
        self._start_engine, self._ask = start_engine, ask

    def start(self, yaml, *, ready=True, hosts=None, **more):
        """Run pipelines in which PORT and PREFIX stand for the port of the http source and the start of names."""
        text = 'version: "2"\n' + yaml.replace("PORT", str(self.port)).replace("PREFIX", self.prefix)
        text = text.replace("HOSTS", json.dumps([hosts or self.url]))
        engine = self._start_engine(text, **more)
        return engine.wait_ready() if ready else engine

    def post(self, *events, path="/log/ingest"):
        with Client(self.port, path) as client:
            assert client.post(events) == (200, "200 OK")

    def ask(self, method, path, body=None):
        return self._ask(self.url, method, path, body)

    def index(self, name):
        return self.prefix + name

    def exists(self, name):
        return self.ask("HEAD", f"/{self.index(name)}")[0] == 200

    def hits(self, name):
        """All documents of an index, oldest id first; empty when there is no such index."""
        index = self.index(name)
        self.ask("POST", f"/{index}/_refresh")
        status, reply = self.ask("GET", f"/{index}/_search?size=10000&version=true")
        assert status in (200, 404), reply
        return sorted(reply["hits"]["hits"], key=lambda hit: hit["_id"]) if status == 200 else []

    def sources(self, name):
        return [hit["_source"] for hit in self.hits(name)]

    def count(self, name):
        index = self.index(name)
        self.ask("POST", f"/{index}/_refresh")
        status, reply = self.ask("GET", f"/{index}/_count")
        return reply["count"] if status == 200 else 0

    def wait_count(self, name, count):
        wait_until(lambda: self.count(name) >= count, f"{count} documents in {name}", step_s=0.1)
        assert self.count(name) == count


@pytest.fixture
def logs(opensearch, start_engine, ask, prefix):
    return Logs(start_engine, opensearch.url, ask, prefix)


ACCESS_LOGS = """\
apache-logs:
  source:
    http:
      port: PORT
      path: "/${pipelineName}/logs"
  processor:
    - grok:
        match:
          log: ["%{COMBINEDAPACHELOG}"]
    - date:
        match:
          - key: timestamp
            patterns: ["dd/MMM/yyyy:HH:mm:ss Z"]
        destination: "@timestamp"
    - convert_entry_type:
        keys: [response, bytes]
        type: integer
  sink:
    - opensearch:
        hosts: HOSTS
        index: "PREFIXapache"
"""


def test_access_logs_arrive_all_and_parsed(logs):
    engine = logs.start(ACCESS_LOGS)
    count = 12_000
    events = [{"log": access(number)[0]} for number in range(count)]
    Shippers(logs.port, events, path="/apache-logs/logs", size=150).start().join()
    logs.wait_count("apache", count)
    index = logs.index("apache")
    for number in range(0, count, 499):
        query = {"query": {"term": {"bytes": 100 + number}}}
        (hit,) = logs.ask("POST", f"/{index}/_search", query)[1]["hits"]["hits"]
        source = hit["_source"]
        source["@timestamp"] = datetime.fromisoformat(source["@timestamp"])
        assert source == access(number)[1]
    totals = {"size": 0, "aggs": {"n": {"cardinality": {"field": "bytes", "precision_threshold": 40_000}}}}
    found = logs.ask("POST", f"/{index}/_search", totals)[1]["aggregations"]["n"]["value"]
    assert abs(found - count) < count / 100, "the server estimates; the documents are different ones"
    properties = logs.ask("GET", f"/{index}/_mapping")[1][index]["mappings"]["properties"]
    assert [properties[name]["type"] for name in ("@timestamp", "response", "verb")] == ["date", "long", "text"]
    assert engine.meter("apache_logs_opensearch_documentsSuccess_total") == count
    engine.stop()


NUMBERED = """\
numbered:
  source: {http: {port: PORT}}
  sink:
    - opensearch:
        hosts: HOSTS
        index: PREFIXnumbered
        document_id: "${/id}"
"""


def test_delivery_begins_when_a_sink_that_was_down_at_the_start_answers(logs, fault_proxy):
    port = free_port()
    engine = logs.start(NUMBERED, ready=False, hosts=f"http://127.0.0.1:{port}")
    engine.wait_log("Failed to initialize OpenSearch sink, retrying: ")
    shippers = Shippers(logs.port, [{"id": n} for n in range(2000)]).start()
    assert engine.ask("GET", "/ready")[0] == 503
    fault_proxy(logs.url, port)
    shippers.join()
    logs.wait_count("numbered", 2000)
    engine.stop()


def test_delivery_loses_nothing_and_repeats_nothing_when_the_sink_is_cut_off_for_a_while(logs, fault_proxy):
    proxy = fault_proxy(logs.url)
    engine = logs.start(NUMBERED, hosts=proxy.url)
    events = [{"id": n, "text": "x" * (n % 200)} for n in range(20_000)]
    shippers = Shippers(logs.port, events).start()
    wait_until(lambda: logs.count("numbered") > 1000, "the first documents")
    proxy.cut_after_forwarding(path="/_bulk", times=3)
    proxy.wait_for(lambda seen: seen.status == 0)
    proxy.cut_before_forwarding()
    proxy.cut_all()
    wait_until(lambda: engine.status()["numbered"]["sinks"][0]["status"] == "DEGRADED", "the sink to be missed")
    time.sleep(2)
    proxy.heal()
    shippers.join()
    logs.wait_count("numbered", len(events))
    wait_until(lambda: engine.status()["numbered"]["sinks"][0]["status"] == "OK", "the sink to be well again")
    assert engine.dead_letters("numbered") == []
    engine.stop()
    assert logs.count("numbered") == len(events)
    assert [hit["_source"] for hit in logs.hits("numbered")[:50]] == [
        events[int(hit["_id"])] for hit in logs.hits("numbered")[:50]
    ]


def test_dead_letters_hold_what_the_server_refuses_and_the_rest_arrives(logs):
    engine = logs.start(NUMBERED)
    logs.post({"id": "first", "n": 1})
    logs.wait_count("numbered", 1)
    logs.post(*({"id": f"{n:03}", "n": "no number" if n % 10 == 3 else n} for n in range(100)))
    logs.wait_count("numbered", 91)
    letters = wait_until(lambda: engine.dead_letters("numbered"), "dead letters")
    assert len(letters) == 10
    for letter in letters:
        assert (letter["pluginId"], letter["pluginName"], letter["pipelineName"]) == (
            "opensearch",
            "opensearch",
            "numbered",
        )
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", letter["timestamp"])
        failed = letter["failedData"]
        assert failed["document"] == {"id": failed["indexId"], "n": "no number"}
        assert (failed["index"], failed["status"], failed["action"]) == (logs.index("numbered"), 400, "index")
        assert "failed to parse field [n] of type [long]" in failed["message"]
    assert engine.meter("numbered_opensearch_deadLetters_total") == 10
    assert "10 events went to the dead-letter queue" in engine.log
    engine.stop()


ODD = {
    "lone surrogate": {"text": "\ud800"},
    "null character": {"text": "a\u0000b", "key\u0000": 1},
    "beyond a long": {"huge": 10**30},
    "beyond a float": {"wide": 1e308},
    "empty key": {"": 1},
    "dots only": {"..": 1},
    "dots between": {"a..b": 1},
    "spaces": {" ": 1},
    "deep": json.loads('{"d":' * 60 + "1" + "}" * 60),
    "many keys": {f"w{n}": n for n in range(1500)},
    "a long text": {"text": "x" * 40_000},
    "reserved": {"_id": "7", "_source": {"a": 1}},
    "mixed list": {"list": [1, "a", {"b": [[2]]}, None]},
    "id with signs": {"id": 'a/b ?#%\u00fc"\\'},
    "id too long": {"id": "i" * 600},
    "id as number": {"id": 7.5},
    "id as list": {"id": [1, 2]},
    "nothing": {},
}


def test_odd_events_arrive_or_become_dead_letters_and_hold_nobody_up(logs):
    engine = logs.start(NUMBERED.replace("http: {port: PORT}", "http: {port: PORT, acknowledgments: true}"))
    outcomes = {}
    for number, (name, event) in enumerate(ODD.items()):
        before = len(engine.dead_letters("numbered")), logs.count("numbered")
        logs.post({"id": f"before-{number}"}, event, {"id": f"after-{number}"})
        letters, documents = len(engine.dead_letters("numbered")) - before[0], logs.count("numbered") - before[1]
        assert letters + documents == 3, name
        assert documents >= 2, name
        outcomes[name] = "dead letter" if letters else "document"
    assert all(letter["failedData"]["message"] for letter in engine.dead_letters("numbered"))
    kept = {name for name, outcome in outcomes.items() if outcome == "document"}
    assert kept >= {"null character", "a long text", "id with signs", "id as number", "nothing"}
    assert logs.ask("GET", f"/{logs.index('numbered')}/_doc/a%2Fb%20%3F%23%25%C3%BC%22%5C")[0] == 200
    engine.stop()


def test_delivery_waits_while_an_index_is_blocked(logs):
    engine = logs.start(NUMBERED)
    logs.post({"id": "1"})
    logs.wait_count("numbered", 1)

    def block(on):
        assert logs.ask("PUT", f"/{logs.index('numbered')}/_settings", {"index.blocks.write": on})[0] == 200

    block(True)
    logs.post(*({"id": str(n)} for n in range(2, 52)))
    wait_until(lambda: engine.meter("numbered_opensearch_bulkRequestNumberOfRetries_total") >= 50, "retries")
    assert engine.dead_letters("numbered") == []
    block(False)
    logs.wait_count("numbered", 51)
    engine.stop()


def test_S_B10_the_path_names_the_pipeline(logs):
    yaml = """\
log-pipeline:
  source: {http: {port: PORT, path: "/${pipelineName}/logs"}}
  sink: [{opensearch: {hosts: HOSTS, index: PREFIXa}}]
"""
    engine = logs.start(yaml)
    logs.post({"a": 1}, path="/log-pipeline/logs")
    with Client(logs.port) as client:
        assert client.post([{"a": 2}])[0] == 404
    logs.wait_count("a", 1)
    engine.stop()


SPLIT = """\
log-pipeline:
  source: {http: {port: PORT}}
  processor:
    - add_entries: {entries: [{key: both, value: true}]}
  sink:
    - pipeline: {name: logs_enriched_one_pipeline}
    - pipeline: {name: logs-enriched-two}
logs_enriched_one_pipeline:
  source: FIRST
  processor:
    - add_entries: {entries: [{key: nested/added, value: one}]}
    - delete_entries: {with_keys: [tag]}
  sink: [{opensearch: {hosts: HOSTS, index: PREFIXone, document_id: "${id}"}}]
logs-enriched-two:
  source: SECOND
  processor:
    - add_entries: {entries: [{key: nested/other, value: two}]}
  sink: [{opensearch: {hosts: HOSTS, index: PREFIXtwo, document_id: "${id}"}}]
"""


def test_S_B11_a_split_gives_every_branch_every_event_and_its_own_changes(logs):
    yaml = SPLIT.replace("FIRST", "{pipeline: {name: log-pipeline}}").replace(
        "SECOND", "{pipeline: {name: log-pipeline}}"
    )
    engine = logs.start(yaml)
    events = [{"id": f"{n:04}", "tag": "t", "nested": {"n": n}} for n in range(1000)]
    logs.post(*events)
    logs.wait_count("one", 1000)
    logs.wait_count("two", 1000)
    assert logs.sources("one") == [
        {"id": e["id"], "nested": {"n": e["nested"]["n"], "added": "one"}, "both": True} for e in events
    ]
    assert logs.sources("two") == [
        {"id": e["id"], "tag": "t", "nested": {"n": e["nested"]["n"], "other": "two"}, "both": True} for e in events
    ]
    engine.stop()


def test_S_B12_the_receiving_side_may_be_written_as_a_name(logs):
    engine = logs.start(SPLIT.replace("FIRST", "log-pipeline").replace("SECOND", '"log-pipeline"'))
    logs.post({"id": "1"})
    logs.wait_count("one", 1)
    logs.wait_count("two", 1)
    engine.stop()


def test_S_B13_a_pipeline_may_write_and_hand_on_at_once(logs):
    yaml = """\
log-pipeline:
  source: {http: {port: PORT}}
  processor:
    - add_entries: {entries: [{key: level, value: [1]}]}
  sink:
    - opensearch: {hosts: HOSTS, index: PREFIXenriched_logs, document_id: "${id}"}
    - pipeline: {name: log_advanced_pipeline}
log_advanced_pipeline:
  source: log-pipeline
  processor:
    - add_entries: {entries: [{key: level, value: 2, append_if_key_exists: true}]}
  sink: [{opensearch: {hosts: HOSTS, index: PREFIXenriched_advanced_logs, document_id: "${id}"}}]
"""
    engine = logs.start(yaml)
    logs.post(*({"id": str(n)} for n in range(300)))
    logs.wait_count("enriched_logs", 300)
    logs.wait_count("enriched_advanced_logs", 300)
    assert {json.dumps(source["level"]) for source in logs.sources("enriched_logs")} == {"[1]"}
    assert {json.dumps(source["level"]) for source in logs.sources("enriched_advanced_logs")} == {"[1, 2]"}
    engine.stop()


def test_S_B17_retries_used_up_and_refusals_become_dead_letters(logs, fault_proxy):
    proxy = fault_proxy(logs.url)
    yaml = NUMBERED + "        max_retries: 3\n"
    engine = logs.start(yaml, hosts=proxy.url)
    proxy.answer(503, "{}", path="/_bulk")
    logs.post({"id": "1"}, {"id": "2"})
    letters = wait_until(lambda: engine.dead_letters("numbered"), "dead letters")
    assert [letter["failedData"]["document"] for letter in letters] == [{"id": "1"}, {"id": "2"}]
    for letter in letters:
        assert letter["failedData"]["status"] == 0
        assert letter["failedData"]["message"].startswith(
            "Number of retries reached the limit of max retries (configured value 3"
        )
    assert len([seen for seen in proxy.requests if "/_bulk" in seen.path]) == 3
    proxy.heal()
    logs.post({"id": "3"})
    logs.wait_count("numbered", 1)
    engine.stop()


def test_S_B23_an_index_that_was_deleted_is_made_again_by_the_next_start(logs):
    logs.start(NUMBERED).stop()
    assert logs.ask("DELETE", f"/{logs.index('numbered')}")[0] == 200
    engine = logs.start(NUMBERED)
    assert (logs.exists("numbered"), logs.count("numbered")) == (True, 0)
    engine.stop()


def test_S_B24_the_index_remains_when_the_pipeline_goes(logs):
    engine = logs.start(NUMBERED)
    logs.post({"id": "1"})
    engine.stop()
    assert logs.sources("numbered") == [{"id": "1"}]


def test_S_B25_every_sink_has_its_index_before_any_event(logs):
    yaml = """\
logs:
  source: {http: {port: PORT}}
  routes:
    - apache: '/kind == "apache"'
    - nginx: '/kind == "nginx"'
  sink:
    - opensearch: {hosts: HOSTS, index: PREFIXapache_logs, routes: [apache]}
    - opensearch: {hosts: HOSTS, index: PREFIXnginx_logs, routes: [nginx]}
"""
    engine = logs.start(yaml)
    for name in ("apache_logs", "nginx_logs"):
        assert (logs.exists(name), logs.count(name)) == (True, 0)
    logs.post({"kind": "apache"}, {"kind": "nginx"}, {"kind": "apache"}, {"kind": "other"})
    logs.wait_count("apache_logs", 2)
    logs.wait_count("nginx_logs", 1)
    engine.stop()


def test_S_B26_names_with_fields_make_an_index_for_each_value(logs):
    yaml = """\
logs:
  source: {http: {port: PORT}}
  sink:
    - opensearch: {hosts: HOSTS, index: "PREFIXmetadata-${metadataType}"}
    - opensearch: {hosts: HOSTS, index: "PREFIXdeep-${index1/index2/index3}"}
"""
    engine = logs.start(yaml)
    assert logs.ask("GET", f"/_cat/indices/{logs.prefix}*?format=json")[1] == []
    logs.post(
        *({"metadataType": kind, "index1": {"index2": {"index3": f"x{kind}"}}} for kind in ("a", "b", "a", "c", "a"))
    )
    for kind, count in {"a": 3, "b": 1, "c": 1}.items():
        logs.wait_count(f"metadata-{kind}", count)
        logs.wait_count(f"deep-x{kind}", count)
    engine.stop()


def test_S_B28_date_patterns_are_filled_with_the_time_of_writing_in_utc(logs):
    yaml = """\
logs:
  source: {http: {port: PORT}}
  sink:
    - opensearch: {hosts: HOSTS, index: "PREFIXday-%{yyyy.MM.dd}"}
    - opensearch: {hosts: HOSTS, index: "PREFIX${kind}-%{yyyy.MM.dd.HH}"}
"""
    engine = logs.start(yaml, environ={"TZ": "Pacific/Kiritimati"})
    before = datetime.now(UTC)
    logs.post({"kind": "web"})
    moments = {before, before + timedelta(seconds=50)}  # the hour may end meanwhile
    for pattern in ("day-%Y.%m.%d", "web-%Y.%m.%d.%H"):
        names = {moment.strftime(pattern) for moment in moments}
        wait_until(lambda names=names: any(logs.count(name) == 1 for name in names), f"one of {names}")
    engine.stop()


def test_S_B30_the_id_is_the_value_of_a_field_or_made_by_the_server(logs):
    yaml = """\
logs:
  source: {http: {port: PORT}}
  sink:
    - opensearch: {hosts: HOSTS, index: PREFIXwith, document_id_field: uuid}
    - opensearch: {hosts: HOSTS, index: PREFIXwithout}
"""
    engine = logs.start(yaml)
    logs.post({"uuid": "u-1", "n": 1}, {"uuid": "u-2", "n": 2})
    logs.wait_count("with", 2)
    logs.wait_count("without", 2)
    assert [(hit["_id"], hit["_source"]["n"]) for hit in logs.hits("with")] == [("u-1", 1), ("u-2", 2)]
    assert all(len(hit["_id"]) >= 20 for hit in logs.hits("without"))
    engine.stop()


def test_S_B31_ids_are_joined_by_a_processor(logs):
    yaml = """\
logs:
  source: {http: {port: PORT}}
  processor:
    - add_entries: {entries: [{key: my_doc_id_field, format: "${uuid}-${other_field}"}]}
  sink: [{opensearch: {hosts: HOSTS, index: PREFIXjoined, document_id_field: my_doc_id_field}}]
"""
    engine = logs.start(yaml)
    logs.post({"uuid": "u1", "other_field": "o1"})
    logs.wait_count("joined", 1)
    assert [hit["_id"] for hit in logs.hits("joined")] == ["u1-o1"]
    engine.stop()


def test_S_B32_create_drops_duplicates_silently(logs):
    engine = logs.start(NUMBERED + "        action: create\n")
    logs.post({"id": "1", "n": "first"})
    logs.wait_count("numbered", 1)
    logs.post({"id": "1", "n": "second"}, {"id": "2"})
    logs.wait_count("numbered", 2)
    assert [(hit["_id"], hit["_version"], hit["_source"].get("n")) for hit in logs.hits("numbered")] == [
        ("1", 1, "first"),
        ("2", 1, None),
    ]
    assert engine.meter("numbered_opensearch_documentsDuplicates_total") == 1
    assert engine.dead_letters("numbered") == []
    engine.stop()


NESTED = {"id": "123", "metadata": {"id": "abcd", "fieldA": "valueA"}, "fieldB": "valueB"}


def test_S_B33_the_id_may_be_nested(logs):
    yaml = """\
logs:
  source: {http: {port: PORT}}
  sink: [{opensearch: {hosts: HOSTS, index: PREFIXnested, document_id_field: info/id}}]
"""
    engine = logs.start(yaml)
    event = {"fieldA": "arbitrary value", "info": {"id": "json001", "fieldA": "xyz", "fieldB": "def"}}
    logs.post(event)
    logs.wait_count("nested", 1)
    assert [(hit["_id"], hit["_source"]) for hit in logs.hits("nested")] == [("json001", event)]
    engine.stop()


def test_S_B34_the_routing_is_the_value_of_a_field(logs):
    yaml = """\
logs:
  source: {http: {port: PORT}}
  sink:
    - opensearch: {hosts: HOSTS, index: PREFIXrouted, document_id_field: id, routing_field: metadata/id}
"""
    engine = logs.start(yaml)
    logs.post(NESTED)
    logs.wait_count("routed", 1)
    found = logs.ask("GET", f"/{logs.index('routed')}/_doc/123?routing=abcd")[1]
    assert (found["_routing"], found["_source"]) == ("abcd", NESTED)
    engine.stop()


def test_S_B35_a_template_shapes_static_and_dynamic_indexes(logs):
    template = json.dumps({"mappings": {"properties": {"kind": {"type": "keyword"}}}})
    yaml = f"""\
logs:
  source: {{http: {{port: PORT}}}}
  sink:
    - opensearch: {{hosts: HOSTS, index: PREFIXstatic, template_content: '{template}'}}
    - opensearch:
        hosts: HOSTS
        index: "PREFIX${{kind}}-dynamic"
        template_content: '{template}'
        number_of_shards: 2
"""
    engine = logs.start(yaml)
    logs.post({"kind": "web"})
    for name in ("static", "web-dynamic"):
        logs.wait_count(name, 1)
        index = logs.index(name)
        found = logs.ask("GET", f"/{index}")[1][index]
        assert found["mappings"]["properties"]["kind"] == {"type": "keyword"}
    assert found["settings"]["index"]["number_of_shards"] == "2"
    engine.stop()


def test_S_B39_an_event_is_acknowledged_when_all_sinks_of_all_pipelines_have_it(logs, fault_proxy):
    proxy = fault_proxy(logs.url)
    yaml = """\
front:
  source: {http: {port: PORT, acknowledgments: true, request_timeout: 5000}}
  sink:
    - opensearch: {hosts: ["REAL"], index: PREFIXone, document_id: "${id}"}
    - pipeline: {name: behind}
behind:
  source: front
  sink: [{opensearch: {hosts: HOSTS, index: PREFIXtwo, document_id: "${id}"}}]
"""
    engine = logs.start(yaml.replace("REAL", logs.url), hosts=proxy.url)
    logs.post({"id": "1"})
    assert (len(logs.hits("one")), len(logs.hits("two"))) == (1, 1), "an answer says that it has arrived"
    proxy.answer(503, "{}", path="/_bulk")
    with Client(logs.port) as client:
        assert client.post([{"id": "2"}]) == (408, "Timeout waiting for the events to be delivered.")
        assert logs.sources("one") == [{"id": "1"}, {"id": "2"}]
        assert logs.sources("two") == [{"id": "1"}]
        threading.Timer(1.0, proxy.heal).start()
        client.deliver([{"id": "2"}])
    assert logs.sources("one") == logs.sources("two") == [{"id": "1"}, {"id": "2"}]
    engine.stop()


def test_S_B40_a_dead_letter_counts_as_acknowledged(logs):
    yaml = """\
numbered:
  source: {http: {port: PORT, acknowledgments: true}}
  sink: [{opensearch: {hosts: HOSTS, index: PREFIXnumbered, document_id: "${id}"}}]
"""
    engine = logs.start(yaml)
    logs.post({"id": "1", "n": 1})
    logs.post({"id": "2", "n": "no number"}, {"id": "3", "n": 3})
    assert [letter["failedData"]["indexId"] for letter in engine.dead_letters("numbered")] == ["2"]
    assert [hit["_id"] for hit in logs.hits("numbered")] == ["1", "3"]
    engine.stop()


def test_S_B42_a_full_buffer_answers_408_until_there_is_room_again(logs, fault_proxy):
    proxy = fault_proxy(logs.url)
    yaml = """\
numbered:
  source: {http: {port: PORT, request_timeout: 1000}}
  buffer: {bounded_blocking: {buffer_size: 20, batch_size: 5}}
  sink: [{opensearch: {hosts: HOSTS, index: PREFIXnumbered, document_id: "${id}"}}]
"""
    engine = logs.start(yaml, hosts=proxy.url)
    proxy.answer(503, "{}", path="/_bulk")
    accepted = []
    with Client(logs.port) as client:
        for number in range(30):
            status, text = client.post([{"id": number}])
            if status != 200:
                break
            accepted.append(number)
        assert (status, text) == (
            408,
            "Timeout waiting for request to be served. This is usually due to the buffer being full.",
        )
        assert len(accepted) == 20
        proxy.heal()
        client.deliver([{"id": 100}])
    logs.wait_count("numbered", 21)
    assert engine.meter("numbered_http_requestTimeouts_total") >= 1
    engine.stop()
    assert {int(hit["_id"]) for hit in logs.hits("numbered")} == {*accepted, 100}
