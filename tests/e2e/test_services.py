"""The services do what the other end-to-end tests rely on."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from proxy import security_exception

from penstock.testing.services import Ministack, Osmem, ServiceFailed
from penstock.testing.services.service import Command

KEY = {"KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}]}
STREAM = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}


def make_table(dynamodb, name, **more):
    reply = dynamodb.create_table(
        TableName=name,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification=STREAM,
        **KEY,
        **more,
    )
    return reply["TableDescription"]


def read_shard(streams, stream_arn, shard_id):
    """All records of one shard and whether the shard has ended."""
    iterator = streams.get_shard_iterator(StreamArn=stream_arn, ShardId=shard_id, ShardIteratorType="TRIM_HORIZON")
    position, records = iterator["ShardIterator"], []
    while position:
        page = streams.get_records(ShardIterator=position)
        records += page["Records"]
        position = page.get("NextShardIterator")
        if position and not page["Records"]:
            return records, False
    return records, True


def shards_of(streams, stream_arn):
    return streams.describe_stream(StreamArn=stream_arn)["StreamDescription"]["Shards"]


@pytest.mark.parametrize("server", ["opensearch", "osmem"])
def test_external_versions_never_go_back(server, request, ask, prefix):
    url = request.getfixturevalue(server).url
    index = prefix + "songs"

    def write(version, body):
        return ask(url, "PUT", f"/{index}/_doc/7?version={version}&version_type=external", body)

    assert write(5, {"title": "new"})[0] == 201
    status, reply = write(5, {"title": "old"})
    assert (status, reply["error"]["type"]) == (409, "version_conflict_engine_exception")
    assert "current version [5] is higher or equal to the one provided [5]" in reply["error"]["reason"]
    assert ask(url, "GET", f"/{index}/_doc/7")[1]["_source"] == {"title": "new"}
    assert ask(url, "DELETE", f"/{index}/_doc/7?version=6&version_type=external")[0] == 200
    assert write(4, {"title": "old"})[0] == 409, "the tombstone keeps its version"


def test_opensearch_has_the_modules_of_the_distribution(opensearch, ask, prefix):
    index = prefix + "scripted"
    assert ask(opensearch.url, "PUT", f"/{index}/_doc/1?refresh=true", {"n": 1})[0] == 201
    painless = {"script": {"source": "ctx._source.n += params.by", "params": {"by": 41}}}
    assert ask(opensearch.url, "POST", f"/{index}/_update/1", painless)[0] == 200
    pipeline = {"processors": [{"set": {"field": "seen", "value": True}}]}
    assert ask(opensearch.url, "PUT", f"/_ingest/pipeline/{prefix}p", pipeline)[0] == 200
    bulk = [{"index": {"_index": index, "_id": "2", "pipeline": f"{prefix}p"}}, {"n": 2}]
    assert ask(opensearch.url, "POST", "/_bulk?refresh=true", bulk)[1]["errors"] is False
    found = ask(opensearch.url, "GET", f"/{index}/_search?sort=n")[1]["hits"]["hits"]
    assert [hit["_source"] for hit in found] == [{"n": 2, "seen": True}, {"n": 42}]
    stream_template = {"index_patterns": [f"{prefix}stream*"], "data_stream": {}}
    assert ask(opensearch.url, "PUT", f"/_index_template/{prefix}t", stream_template)[0] == 200
    assert ask(opensearch.url, "PUT", f"/_data_stream/{prefix}stream")[0] == 200


def test_dynamodb_local_streams_and_rolls_shards_over(dynamodb_local, aws_client, prefix):
    dynamodb = aws_client("dynamodb", dynamodb_local.url)
    streams = aws_client("dynamodbstreams", dynamodb_local.url)
    stream_arn = make_table(dynamodb, prefix + "t")["LatestStreamArn"]
    dynamodb.put_item(TableName=prefix + "t", Item={"id": {"N": "7"}, "Artist": {"S": "a"}})
    (parent,) = shards_of(streams, stream_arn)
    records, ended = read_shard(streams, stream_arn, parent["ShardId"])
    assert [(r["eventName"], r["dynamodb"]["NewImage"]) for r in records] == [
        ("INSERT", {"id": {"N": "7"}, "Artist": {"S": "a"}})
    ]
    assert not ended

    dynamodb_local.roll_shards_over()
    dynamodb.delete_item(TableName=prefix + "t", Key={"id": {"N": "7"}})

    parent, child = shards_of(streams, stream_arn)
    assert child["ParentShardId"] == parent["ShardId"]
    assert "EndingSequenceNumber" in parent["SequenceNumberRange"]
    assert "EndingSequenceNumber" not in child["SequenceNumberRange"]
    assert read_shard(streams, stream_arn, parent["ShardId"])[1], "a closed shard has a last page"
    records, ended = read_shard(streams, stream_arn, child["ShardId"])
    assert [r["eventName"] for r in records] == ["REMOVE"]
    assert not ended


def test_dynamodb_local_listens_on_loopback_only(dynamodb_local):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; only chooses the outgoing address
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address = probe.getsockname()[0]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, dynamodb_local.port), timeout=5)


def test_moto_has_point_in_time_recovery(moto, aws_client, prefix):
    dynamodb = aws_client("dynamodb", moto.url)
    make_table(dynamodb, prefix + "t")

    def status():
        described = dynamodb.describe_continuous_backups(TableName=prefix + "t")["ContinuousBackupsDescription"]
        return described["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"]

    assert status() == "DISABLED"
    enabled = {"PointInTimeRecoveryEnabled": True}
    dynamodb.update_continuous_backups(TableName=prefix + "t", PointInTimeRecoverySpecification=enabled)
    assert status() == "ENABLED"


def test_ministack_serves_a_role_by_table_arn(ministack, aws_client, prefix):
    """What the demonstration needs: the table's ARN in place of its name, read with credentials of an assumed role."""
    table = make_table(aws_client("dynamodb", ministack.url), prefix + "t")
    assert table["TableArn"] == f"arn:aws:dynamodb:us-east-1:123456789012:table/{prefix}t"
    role = aws_client("sts", ministack.url).assume_role(
        RoleArn="arn:aws:iam::123456789012:role/Example-Role", RoleSessionName="test"
    )
    as_role = aws_client("dynamodb", ministack.url, access_key=role["Credentials"]["AccessKeyId"])
    described = as_role.describe_table(TableName=table["TableArn"])["Table"]
    assert described["StreamSpecification"] == STREAM
    as_role.put_item(TableName=table["TableArn"], Item={"id": {"N": "1"}})
    as_role.put_item(TableName=table["TableArn"], Item={"id": {"N": "1"}})
    streams = aws_client("dynamodbstreams", ministack.url, access_key=role["Credentials"]["AccessKeyId"])
    (shard,) = shards_of(streams, described["LatestStreamArn"])
    records, _ = read_shard(streams, described["LatestStreamArn"], shard["ShardId"])
    assert [r["eventName"] for r in records] == ["INSERT"], "a put that changes nothing leaves no record"


def test_buckets_on_both_emulators(moto, ministack, aws_client, prefix):
    for service in (moto, ministack):
        s3 = aws_client("s3", service.url)
        s3.create_bucket(Bucket=prefix + "b")
        s3.put_object(Bucket=prefix + "b", Key="a/b", Body=b"\x00\xff")
        assert s3.get_object(Bucket=prefix + "b", Key="a/b")["Body"].read() == b"\x00\xff"


def test_proxy_refuses_until_it_is_healed(osmem, fault_proxy, ask, prefix):
    proxy = fault_proxy(osmem.url)
    role = "arn:aws:iam::123456789012:role/Example-Role"
    proxy.answer(403, security_exception(role))
    status, reply = ask(proxy.url, "GET", "/_cluster/health")
    assert (status, reply["error"]["type"]) == (403, "security_exception")
    assert f"no permissions for [cluster:monitor/state] and User [name={role}," in reply["error"]["reason"]
    proxy.heal()
    assert ask(proxy.url, "PUT", f"/{prefix}i/_doc/a%2Fb", {"n": 1})[0] == 201
    assert ask(osmem.url, "GET", f"/{prefix}i/_doc/a%2Fb")[1]["_source"] == {"n": 1}
    assert [(seen.status, seen.forwarded) for seen in proxy.requests] == [(403, False), (201, True)]


def test_proxy_faults_one_path_a_number_of_times(osmem, fault_proxy, ask, prefix):
    proxy = fault_proxy(osmem.url)
    proxy.answer(429, "{}", path="/_bulk", times=1, headers={"Retry-After": "1"})
    proxy.cut_before_forwarding(path="/_bulk", times=1)
    proxy.cut_after_forwarding(path="/_bulk", times=1)
    proxy.delay(0.3, path="/_bulk", times=1)

    def bulk(number):
        return ask(
            proxy.url, "POST", "/_bulk", [{"index": {"_index": f"{prefix}i", "_id": str(number)}}, {"n": number}]
        )

    assert bulk(1)[0] == 429
    for number in (2, 3):
        with pytest.raises(ConnectionError):
            bulk(number)
    assert bulk(4)[0] == 200
    written = [ask(osmem.url, "GET", f"/{prefix}i/_doc/{number}")[0] for number in (1, 2, 3, 4)]
    assert written == [404, 404, 200, 200], "only the third was forwarded before the connection was cut"


def test_proxy_cuts_connections_that_wait(osmem, fault_proxy, ask):
    proxy = fault_proxy(osmem.url)
    proxy.delay(60)
    cutter = threading.Timer(0.3, proxy.cut_all)
    cutter.start()
    with pytest.raises(ConnectionError):
        ask(proxy.url, "GET", "/")
    cutter.join()


def test_stop_is_idempotent_and_the_process_is_gone(osmem):
    service = Osmem().start()
    pid = service.pid
    assert pid is not None
    service.stop()
    service.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ServiceFailed, match="not running"):
        _ = service.url


def test_a_service_ends_with_the_process_that_started_it(ministack, tmp_path):
    script = (
        "import os, signal; from penstock.testing.services import Ministack; s = Ministack().start();"
        "print(s.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "TMPDIR": str(tmp_path)},  # nobody is left who could remove the server's folder
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    pid = int(killed.stdout)
    deadline = time.monotonic() + 20
    while _runs(pid):
        assert time.monotonic() < deadline, "the emulator outlived the process that started it"
        time.sleep(0.05)


def test_a_server_that_ends_at_once_is_reported_with_its_log(monkeypatch, ministack):
    broken = Command([sys.executable, "-c", "import sys; print('no such luck'); sys.exit(3)"])
    monkeypatch.setattr(Ministack, "command", lambda self, port, work: broken)
    with pytest.raises(ServiceFailed, match=r"(?s)ended with code 3.*no such luck"):
        Ministack().start()


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A process that ended and that nobody waited for still has its id.
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"
