import pytest

from penstock.config.references import Reference, References
from penstock.config.server import REPLACED, ServerConfig, parse_server_config, read_server_config


def parse(text, references=None):
    return parse_server_config(text.encode(), "data-prepper-config.yaml", references)


def test_without_a_file_everything_has_its_default():
    config = read_server_config(None).config
    assert (config.server_port, config.processor_shutdown_timeout, config.admin_tls) == (4900, 30.0, False)
    assert config.source_coordination.store == {"in_memory": None}
    assert parse("").config == config == parse("# empty").config


def test_camel_case_and_snake_case():
    camel = parse("ssl: false\nserverPort: 1234\nmetricTags: {a: b}\nsinkShutdownTimeout: PT1M")
    snake = parse("ssl: false\nserver_port: 1234\nmetric_tags: {a: b}\nsink_shutdown_timeout: 60s")
    assert camel.config == snake.config
    assert not camel.problems
    assert camel.config.sink_shutdown_timeout == 60.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server_port: -1", "Server port must be a positive integer"),
        ("server_port: 99999", "Server port should be between 0 and 65535."),
        ("metric_tags: {a: '1', b: '2', c: '3', d: '4'}", "metricTags cannot be more than 3"),
        (
            "metric_tag_filters: [{pattern: a, tags: {a: '1', b: '2', c: '3', d: '4'}}]",
            "Each metric tag filter may have no more than 3 tags.",
        ),
        ("processor_shutdown_timeout: PT-5S", "processorShutdownTimeout must be non-negative."),
        ("sink_shutdown_timeout: -PT5S", "sinkShutdownTimeout must be non-negative."),
        ("circuit_breakers: {heap: {usage: 0b}}", "Bytes usage must be positive."),
        ("source_coordination: {store: }", "source_coordination store must not be null"),
        ("peer_forwarder: {port: 70000}", "Server port should be between 0 and 65535."),
        ("peer_forwarder: {discovery_mode: DNS}", "Domain name cannot be null if discover mode is DNS."),
        (
            "peer_forwarder: {forwarding_batch_size: 20000}",
            "Forwarding batch size must be between 1 and 3000 inclusive.",
        ),
        ("peer_forwarder: {authentication: {kerberos: }}", "Unrecognized ForwardingAuthentication: kerberos"),
        (
            "peer_forwarder: {ssl: false, authentication: {mutual_tls: }}",
            "Mutual TLS is only available when SSL is enabled.",
        ),
        ("peer_forwarder: {drain_timeout: PT-1S}", "Peer forwarder drain timeout must be non-negative."),
        ("ssl: true", "key_store_file_path must be given when ssl is enabled"),
    ],
)
def test_rules_have_their_exact_words(text, message):
    (problem,) = parse(text).problems
    assert problem.message == message
    assert problem.line == 1


def test_unknown_and_wrong_keys_are_told_at_once_with_lines():
    document = parse("ssl: false\nserver_prt: 4900\npipeline_shutdown: never\npeer_forwarder:\n  batch_sice: 3\n")
    assert sorted((problem.line, problem.path) for problem in document.problems) == [
        (2, "server_prt"),
        (3, "pipeline_shutdown"),
        (5, "peer_forwarder.batch_sice"),
    ]
    messages = {problem.path: problem.message for problem in document.problems}
    assert 'Did you mean "server_port"?' in messages["server_prt"]
    assert "on-any-pipeline-failure, on-all-pipeline-failures" in messages["pipeline_shutdown"]
    assert 'Did you mean "batch_size"?' in messages["peer_forwarder.batch_sice"]
    assert document.config == ServerConfig()


def test_what_has_no_counterpart_says_what_replaces_it():
    document = parse(
        "peer_forwarder: {port: 4994}\ncircuit_breakers: {heap: {usage: 6gb}}\nevent: {maximum_cached_keys: 10}\n"
        "emf_metrics: {additional_properties: {a: b}}\nmetric_registries: [CloudWatch]\n"
    )
    assert not document.problems
    assert {warning.path for warning in document.warnings} == {*REPLACED, "metric_registries"}
    assert all(warning.suggestion and warning.line for warning in document.warnings)


def test_bad_yaml_and_wrong_shapes():
    assert "Invalid DataPrepper configuration file." in parse("a: [").problems[0].message
    assert "Invalid DataPrepper configuration file." in parse("- a").problems[0].message
    assert "Invalid DataPrepper configuration file." in read_server_config("/does/not/exist").problems[0].message


def test_secrets_of_the_server_are_resolved_and_hidden():
    text = "authentication:\n  http_basic:\n    username: admin\n    password: ${{env:ADMIN_PASSWORD}}\n"
    references = References({Reference("env", "ADMIN_PASSWORD"): "hunter22"}, offline=False)
    document = parse(text, references)
    assert document.config.authentication.http_basic.password.get_secret_value() == "hunter22"
    assert "hunter22" not in repr(document)
    (problem,) = parse(text, References(offline=False)).problems
    assert (problem.line, problem.message) == (4, "${{env:ADMIN_PASSWORD}} has no value.")
