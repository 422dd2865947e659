"""Writes documents to OpenSearch, Amazon OpenSearch Service, OpenSearch Serverless and Elasticsearch by bulk requests.

The index is created before the first document arrives, together with its template and rollover policy where there are
any; `index_type: management_disabled` leaves all that to you. While the servers are away or refuse the identity of the
pipeline, the sink tries again every 5 seconds and the source waits.

What becomes of a document the server refuses:

| answer | outcome |
| --- | --- |
| 409 on `create` | it is there already: success, counted in `documentsDuplicates` |
| 409 with an external version | a newer one is there: success, counted in `documentsVersionConflictErrors` |
| 404 on `delete` | it is gone already: success, counted in `documentsAlreadyDeleted` |
| 401, 403, 429, 5xx | tried again, only this document |
| 400, 404 on `update`, other 409 | dead letter with the server's reason, the id, the action and the routing |
| 400, 409, 413, 422 for the whole request | halved until the bad document is alone; that one is a dead letter |
| anything else for the whole request | tried again, nothing is lost: a 404 means a wrong `path_prefix` or proxy |

A later `index` or `delete` of an id that still waits to be sent takes the place of the waiting operation; both are
acknowledged when it is written. With external versions only a higher version does.

`query_lookup` is for targets without ids of their own (data streams, time-series collections): documents for which
`query_when` holds are searched for by `query_term` before they are written, at once and then every 20 s.

`index_type: tsdb` writes metrics as samples of time series: a histogram becomes one document for each bucket, its count
and its sum. When some of them are refused, these alone are sent again or make up the dead letter.

`pull_indexing` writes to the Kafka topic of an index that pulls its documents (OpenSearch 3), each into the partition
of its shard. The topic is made where it is missing. What the cluster then refuses it does not tell this sink.

Of the entries in `actions` the first that matches is used and `action` where none does; Data Prepper takes the last
entry when none matches. An unknown action makes a dead letter; Data Prepper loses the event.
"""

from penstock import sdk
from penstock.plugins.sinks.opensearch.options import Config
from penstock.plugins.sinks.opensearch.pull import PullSink
from penstock.plugins.sinks.opensearch.sink import OpenSearchSink
from penstock.plugins.sinks.opensearch.tsdb import TsdbSink

__all__ = ["EXAMPLES", "Config", "build"]


def build(config: Config, ctx: sdk.Context) -> sdk.BulkSink:
    if config.pull_indexing is not None:
        return PullSink(config, ctx)
    return (TsdbSink if config.kind == "tsdb" else OpenSearchSink)(config, ctx)


EXAMPLES = [
    sdk.Example(
        "One index a day, ids from the events, sent again without making duplicates",
        config="""
hosts: ["https://localhost:9200"]
index: logs-%{yyyy.MM.dd}
username: admin
password: admin
action: create
document_id: "${/request/id}"
""",
    ),
    sdk.Example(
        "Changes of a DynamoDB table",
        config="""
hosts: ["https://search-mydomain.us-east-1.es.amazonaws.com"]
index: table-index
index_type: custom
document_id: '${getMetadata("primary_key")}'
action: '${getMetadata("opensearch_action")}'
document_version: '${getMetadata("document_version")}'
document_version_type: external
aws: {sts_role_arn: "arn:aws:iam::123456789012:role/Example-Role", region: us-east-1}
""",
    ),
    sdk.Example(
        "A data stream without duplicates when requests are repeated, and dead letters in S3",
        config="""
hosts: ["http://localhost:9200"]
index: logs-app
action: create
query_lookup:
  query_when: '/retried == true'
  query_term: event_id
  query_on_bulk_errors: true
dlq:
  s3: {bucket: my-dlq-bucket, key_path_prefix: "dlq-files/%{yyyy}/%{MM}"}
""",
    ),
    sdk.Example(
        "Metrics as samples of time series",
        config="""
hosts: ["http://localhost:9200"]
index_type: tsdb
""",
    ),
    sdk.Example(
        "An index for each tenant, made legal, with a template and conditional actions",
        config="""
hosts: ["http://localhost:9200"]
index: "events-${/tenant}"
normalize_index: true
template_type: index-template
template_content: '{"template": {"settings": {"number_of_shards": 1}}}'
document_id: "${/id}"
actions:
  - {type: delete, when: "/deleted == true"}
  - {type: upsert}
""",
    ),
]
