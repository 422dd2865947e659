import re

import pytest

from penstock.config import References, parse_pipelines, parse_server_config
from penstock.config.references import Reference
from penstock.plan import make_plan
from penstock.plan.blocks import BUFFER_BYTES_MAX

GOOD = """
    version: 2
    log-pipeline:
      workers: 4
      delay: 100
      buffer_bytes_max: 1mb
      source:
        trickle:
          port: 2022
          codec: {lines: {header: true}}
      processor:
        - shuffle:
            entries:
              - {from_key: a, to_key: b, shuffle_when: '/a == 1'}
      routes:
        - errors: '/level == "error"'
      sink:
        - bucket: {size: 1mb, routes: [errors], include_keys: [z, b], tags_target_key: tags}
        - pipeline: {name: second}
    second:
      source: log-pipeline
      sink:
        bucket: {size: 2mb}
"""


def one(plan):
    (problem,) = plan.problems
    return problem


def test_a_plan_holds_everything_that_runs(plan):
    made = plan(GOOD)
    assert not made.problems
    first, second = made.pipelines
    assert (first.name, first.workers, first.delay_ms, first.buffer_bytes_max) == ("log-pipeline", 4, 100, 1024 * 1024)
    assert first.source.config.port == 2022
    assert first.source.config.codec.config.header is True
    assert first.buffer.name == "bounded_blocking"
    assert (first.buffer.config.buffer_size, first.buffer.config.batch_size) == (12800, 200)
    assert [name for name, _ in first.routes] == ["errors"]
    bucket, connector = first.sinks
    assert (bucket.routes, bucket.include_keys, bucket.tags_target_key) == (("errors",), ("b", "z"), "tags")
    assert bucket.plugin.config.size == 1024 * 1024
    assert (bucket.target, connector.target) == (None, "second")
    assert (second.source, second.upstreams, second.buffer_bytes_max) == (None, ("log-pipeline",), BUFFER_BYTES_MAX)
    assert first.processors[0].path == "log-pipeline > processor 1 shuffle"
    assert (first.processors[0].file, first.processors[0].line) == ("pipelines.yaml", 12)


def test_a_plan_prints_as_text(plan):
    assert str(plan(GOOD)) == (
        "log-pipeline (workers 4, delay 100 ms, buffer bounded_blocking)\n"
        "  from source trickle\n"
        "  processor 1 shuffle\n"
        '  route errors: /level == "error"\n'
        "  sink 1 bucket [errors]\n"
        "  sink 2 pipeline -> second\n"
        "\n"
        "second (workers 1, delay 3000 ms, buffer bounded_blocking)\n"
        "  from pipeline log-pipeline\n"
        "  sink 1 bucket"
    )


def test_eight_mistakes_are_all_told_in_one_run(plan):
    made = plan(
        """
        first:
          source:
            trickle:
              port: lots
            http:
              port: 1
          processor:
            - shufle:
            - shuffle:
                entries:
                  - from_key: a
                    to_ky: b
                    to_key: c
                    shuffle_when: '/a = = 1'
          sink:
            - bucket:
                routes: [nope]
        ring-a:
          source: ring-b
          sink:
            - pipeline: {name: ring-b}
        ring-b:
          source: {pipeline: {name: ring-a}}
          sink:
            - pipeline: {name: ring-a}
        good:
          source:
            trickle:
          sink:
            - bucket: {size: 1b}
        """
    )
    found = [(problem.line, problem.path, problem.message, problem.suggestion) for problem in made.problems]
    assert found == [
        (
            5,
            "first > source trickle > port",
            'Parameter "port" for plugin "trickle" is invalid: Cannot deserialize value of type `int` from String '
            '"lots": not a valid `int` value',
            "",
        ),
        (6, "first > source http", "A pipeline has exactly one source, found [trickle, http].",
         "move http into a pipeline of its own"),
        (
            9,
            "first > processor 1 shufle",
            "Unable to find a plugin named 'shufle'. Please ensure that plugin is annotated with appropriate values.",
            "did you mean shuffle?",
        ),
        (
            13,
            "first > processor 2 shuffle > entries.0.to_ky",
            'Parameter "entries.0.to_ky" for plugin "shuffle" does not exist. Available options include '
            '[from_key, to_key, shuffle_when, text]. Did you mean "to_key"?',
            "write to_key instead of to_ky",
        ),
        (
            15,
            "first > processor 2 shuffle > entries.0.shuffle_when",
            'Plugin shuffle in pipeline first is configured incorrectly: shuffle_when "/a = = 1" is not a valid '
            "expression statement. See https://opensearch.org/docs/latest/data-prepper/pipelines/expression-syntax/ "
            "for valid expression syntax",
            found[4][3],
        ),
        (
            17,
            "first > sink 1 bucket > size",
            "Plugin bucket in pipeline first is configured incorrectly: size must not be null",
            "set size",
        ),
        (
            18,
            "first > sink 1 bucket > routes",
            'The following routes do not exist in pipeline "first": [nope]. Configured routes include []',
            "",
        ),
        (
            22,
            "ring-a > sink 1 pipeline",
            "Provided configuration results in a loop, check pipeline: ring-a",
            "break the circle ring-a > ring-b > ring-a",
        ),
    ]  # fmt: skip
    assert "=" in found[4][3]
    assert made.pipelines == ()


def test_a_pipeline_that_fails_takes_those_connected_to_it_along(plan):
    made = plan(
        """
        a: {source: {trickle: }, sink: [pipeline: {name: b}]}
        b: {source: a, sink: [bucket: {size: big}]}
        c: {source: {trickle: }, sink: [bucket: {size: 1b}]}
        """
    )
    assert [pipeline.name for pipeline in made.pipelines] == ["c"]
    assert made.skipped == ("a", "b")
    assert one(made).path == "b > sink 1 bucket > size"


@pytest.mark.parametrize(
    ("options", "line", "message"),
    [
        ("{prot: 1}", 4, 'Parameter "prot" for plugin "trickle" does not exist. Available options include [port, path, '
         'mode, timeout, codec, hosts, aws, proxy]. Did you mean "port"?'),
        ("{port: 70000}", 4,
         "Plugin trickle in pipeline p is configured incorrectly: port must be less than or equal to 65535"),
        ("{path: logs}", 4, "Plugin trickle in pipeline p is configured incorrectly: path should start with /"),
        ("{mode: fats}", 4,
         'Parameter "mode" for plugin "trickle" is invalid: Invalid value "fats". Valid options include [fast, slow].'),
        ("{timeout: 5m}", 4,
         'Parameter "timeout" for plugin "trickle" is invalid: Durations must use either ISO 8601 notation or simple '
         "notations for seconds (60s) or milliseconds (100ms). Whitespace is ignored."),
        ("{port: {a: b}}", 4,
         'Parameter "port" for plugin "trickle" is invalid: Cannot deserialize value of type `int` from Object value.'),
        ("{hosts: {a: b}}", 4,
         'Parameter "hosts" for plugin "trickle" is invalid: Cannot deserialize value of type `String` from Object '
         "value."),
        ("{hosts: [a, [b]]}", 4,
         'Parameter "hosts.1" for plugin "trickle" is invalid: Cannot deserialize value of type `String` from Array '
         "value."),
        ("{proxy: x}", 4, 'Parameter "proxy" for plugin "trickle" is not supported yet.'),
        ("{codec: {liens: }}", 4, "Unable to find a plugin named 'liens'. Please ensure that plugin is annotated with "
         "appropriate values."),
        ("{codec: {otel_logs: }}", 4, 'Plugin "otel_logs" is not supported yet'),
        ("{codec:\n      {lines:\n         {headr: true}}}", 6,
         'Parameter "headr" for plugin "lines" does not exist. Available options include [header]. Did you mean '
         '"header"?'),
        ("{aws: {region: ''}}", 4,
         "Plugin trickle in pipeline p is configured incorrectly: aws.region must not be empty"),
        ("hello", 4, "String values not allowed for plugin 'trickle'"),
        ("[a]", 4, "Unexpected value for plugin 'trickle': expected an object, null, or no value, but got START_ARRAY"),
        ("5", 4,
         "Unexpected value for plugin 'trickle': expected an object, null, or no value, but got VALUE_NUMBER_INT"),
    ],
)  # fmt: skip
def test_wrong_options_have_data_preppers_words(plan, options, line, message):
    text = f"p:\n  source:\n\n    trickle: {options}\n  sink: [bucket: {{size: 1b}}]\n"
    made = make_plan(parse_pipelines([("f", text.encode())]))
    problem = one(made)
    assert (problem.line, problem.message) == (line, message)
    assert problem.plugin == "trickle"
    assert made.skipped == ("p",)


def test_null_is_left_out_and_a_boolean_is_a_text_where_one_is_wanted(plan):
    made = plan("p: {source: {trickle: {port: , codec: }}, sink: [bucket: {size: 1b, note: no}]}")
    assert not made.problems
    assert made.pipelines[0].source.config.port == 2021
    assert made.pipelines[0].sinks[0].plugin.config.note == "false"


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("{source: {trickle: }}", "Sinks must not be null"),
        ("{source: {trickle: }, sink: []}", "Invalid configuration, at least one sink is required"),
        ("{source: {trickle: }, sink: {}}", "Invalid configuration, at least one sink is required"),
        ("{sink: [bucket: {size: 1b}]}",
         "Pipeline p has no source, and no other pipeline forwards events to it"),
        ("{workers: 0, source: {trickle: }, sink: [bucket: {size: 1b}]}",
         "Invalid configuration, workers cannot be 0"),
        ("{delay: -1, source: {trickle: }, sink: [bucket: {size: 1b}]}",
         "Invalid configuration, delay must be a non-negative integer."),
        ("{sinks: [], source: {trickle: }, sink: [bucket: {size: 1b}]}",
         'Parameter "p.sinks" does not exist. Available options include [workers, delay, source, buffer, processor, '
         'routes, sink, buffer_bytes_max]. Did you mean "sink"?'),
        ("{source: {trickle: }, processor: {shuffle: }, sink: [bucket: {size: 1b}]}",
         'Parameter "p.processor" is invalid: expected a list of plugins.'),
        ("{source: {trickle: }, route: [{a: b, c: d}], sink: [bucket: {size: 1b}]}", "Route has too many fields."),
        ("{source: {trickle: }, route: [{a: {b: c}}], sink: [bucket: {size: 1b}]}",
         "Route has a condition which is not a string."),
        ("{source: {trickle: }, sink: [bucket: {size: 1b, include_keys: [a/b]}]}", "include_keys cannot contain /"),
        ("{source: {trickle: }, sink: [bucket: {size: 1b, exclude_keys: [/b]}]}", "exclude_keys cannot contain /"),
        ("{source: {trickle: }, sink: [bucket: {size: 1b, include_keys: [a], exclude_keys: [b]}]}",
         "include_keys and exclude_keys cannot both exist in the configuration at the same time."),
        ("{source: {trickle: }, sink: [bucket: {size: 1b, forward_to: {pipelines: [a, b]}}]}",
         "Supports only one forwarding pipeline"),
        ("{source: {trickle: }, sink: [bucket: {size: 1b, forward_to: {pipelines: [a]}}]}",
         "forwarding pipeline a doesn't exist"),
        ("{source: {trickle: }, sink: [bucket]}", "A sink is a map with one key, the name of the plugin."),
        ("{source: [{trickle: }], sink: [bucket: {size: 1b}]}", "A pipeline has exactly one source, not a list."),
        ("{source: trickle, sink: [bucket: {size: 1b}]}",
         "Invalid configuration, no pipeline is defined with name trickle"),
        ("text", 'Parameter "p" is invalid: expected a map with source, processor and sink.'),
    ],
)  # fmt: skip
def test_wrong_pipelines(plan, pipeline, message):
    messages = [problem.message for problem in plan(f"p: {pipeline}").problems]
    if pipeline in ("text",):  # what is missing besides is told too
        assert message in messages
    else:
        assert messages == [message]


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("2", None),
        ("'2'", None),
        ("2.17", None),
        ("1.5", None),
        ("2.18", "The version: 2.18 is not compatible with the current version: 2.17"),
        ("'3'", "The version: 3 is not compatible with the current version: 2.17"),
        ("two", "Invalid Data Prepper Version provided: two"),
        ("1.2.3", "Invalid Data Prepper Version provided: 1.2.3"),
    ],
)
def test_versions(plan, version, message):
    made = plan(f"version: {version}\np: {{source: {{trickle: }}, sink: [bucket: {{size: 1b}}]}}")
    assert [problem.message for problem in made.problems] == ([message] if message else [])
    assert bool(made.pipelines) == (message is None)


def test_a_deprecated_name_works_with_a_warning(plan):
    made = plan("p: {source: {trickle: }, processor: [convert_entry_type: {key: a, type: integer}], sink: [drop: ]}")
    messages = [warning.message for warning in made.warnings]
    supported = not any("not supported yet" in problem.message for problem in made.problems)
    expected = (
        "Plugin name 'convert_entry_type' is deprecated and will be removed in the next major release. "
        "Consider using the updated plugin name 'convert_type'."
    )
    assert messages == ([expected] if supported else [])
    if supported:
        assert made.pipelines[0].processors[0].name == "convert_type"
        assert made.pipelines[0].processors[0].name_as_written == "convert_entry_type"


def test_experimental_plugins_have_to_be_allowed(plan, monkeypatch):
    from penstock.plan import catalog

    monkeypatch.setitem(catalog.EXPERIMENTAL, "sink", frozenset({"bucket"}))
    text = "p: {source: {trickle: }, sink: [bucket: {size: 1b}]}"
    assert "Unable to create experimental plugin bucket." in one(plan(text)).message
    allowed = parse_server_config(b"experimental: {enabled_plugins: {sink: [bucket]}}", "c")
    assert not plan(text, server_config=allowed).problems


SECRETS = """
    extension:
      aws:
        secrets:
          login: {secret_id: my-secret}
    p:
      source:
        trickle:
          port: ${{env:PORT}}
          path: ${{aws_secrets:login:path}}
          aws: {region: eu, token: s3cret-token}
      sink:
        - bucket: {size: 1b, note: '${{file:/run/note}}'}
"""
PORT, PATH, NOTE = Reference("env", "PORT"), Reference("aws_secrets", "login", "path"), Reference("file", "/run/note")


def test_offline_references_are_left_open(plan):
    made = plan(SECRETS)
    assert not made.problems
    assert one(plan(SECRETS.replace("login: {", "other: {"))).message == "Unable to find secretId: login"


def test_references_are_replaced_and_their_values_never_shown(plan):
    values = {PORT: "2023", PATH: "/hidden-path", NOTE: "hidden-note"}
    made = plan(SECRETS, references=References(values, offline=False))
    assert not made.problems
    source = made.pipelines[0].source
    assert (source.config.port, source.config.path) == (2023, "/hidden-path")
    assert made.pipelines[0].sinks[0].plugin.config.note == "hidden-note"
    assert not re.search("hidden|s3cret", f"{made} {made!r}")
    assert source.definition == {
        "port": "${{env:PORT}}",
        "path": "${{aws_secrets:login:path}}",
        "aws": {"region": "eu", "token": "******"},
    }
    bad = plan(SECRETS, references=References(values | {PORT: "secret-port"}, offline=False))
    assert "secret-port" not in str(bad.problems)
    assert one(bad).line == 9


def test_references_without_a_value_stop_the_pipeline(plan):
    references = References({PATH: "/x", NOTE: "y"}, offline=False, failures={PORT: "PORT is not set."})
    problem = one(plan(SECRETS, references=references))
    assert (problem.line, problem.message, problem.path) == (9, "PORT is not set.", "p > source trickle > port")


def test_parts_of_texts_and_unknown_references_are_refused(plan):
    made = plan("p: {source: {trickle: {path: '/x/${{env:A}}', hosts: '${{vault:x}}'}}, sink: [bucket: {size: 1b}]}")
    assert {problem.path for problem in made.problems} == {"p > source trickle > path", "p > source trickle > hosts"}


def test_placeholders_are_warned_of(plan):
    made = plan("p: {source: {trickle: {hosts: ['<<https://search>>']}}, sink: [bucket: {size: 1b}]}")
    (warning,) = made.warnings
    assert (warning.path, warning.message) == (
        "p > source trickle > hosts.0",
        "The placeholder <<https://search>> was not replaced.",
    )
    assert not made.problems


def test_only_the_first_nested_plugin_is_used(plan):
    made = plan("p: {source: {trickle: {codec: {lines: , json: }}}, sink: [bucket: {size: 1b}]}")
    assert not made.problems
    assert [(w.message, w.path) for w in made.warnings] == [
        ("Only the first of [lines, json] is used.", "p > source trickle > codec")
    ]


def test_a_plugin_without_options_takes_anything_but_says_so(plan):
    made = plan("p: {source: {trickle: }, sink: [noop: {some: value, routes: [], include_keys: [a]}]}")
    assert not made.problems
    assert [w.message for w in made.warnings] == ['Parameter "some" has no effect: plugin "noop" has no options.']


def test_traps_in_conditions_are_warned_of_where_they_stand(plan):
    made = plan(
        """
        p:
          source: {trickle: }
          processor:
            - shuffle:
                entries:
                  - from_key: a
                    to_key: b
                    shuffle_when: 'not /a == 1'
          routes:
            - all: '/a == 1 or /b == 2 and /c == 3'
          sink: [bucket: {size: 1b}]
        """
    )
    assert not made.problems
    assert [(w.line, w.path, w.severity) for w in made.warnings] == [
        (9, "p > processor 1 shuffle > entries.0.shuffle_when", "warning"),
        (11, "p > routes 1 all", "warning"),
    ]
    assert "`not` applies to one operand only" in made.warnings[0].message


def test_extensions_of_pipeline_file_and_server(plan):
    server = parse_server_config(
        b"extensions:\n  aws:\n    configurations: {}\n    secrets:\n      a: {secret_id: server}\n", "server.yaml"
    )
    text = """
        extension:
          aws: {secrets: {a: {secret_id: file}}}
          encryption: {}
          nonsense: {}
        p: {source: {trickle: }, sink: [bucket: {size: 1b}]}
    """
    made = plan(text, server_config=server)
    assert not made.problems
    (aws,) = made.extensions
    assert aws.config.secrets["a"].secret_id == "file"
    assert sorted(w.path for w in made.warnings) == ["extension > encryption", "extension > nonsense"]
    refused = plan(text.replace("secrets: {a: {secret_id: file}}", "configurations: {}"))
    assert one(refused).message == "Extension /aws/configurations cannot be set in a pipeline file."
    wrong = plan(text.replace("secret_id: file", "secret_id: file, region: ''"))
    assert one(wrong).message == (
        "Extension /aws in PipelineExtensions is configured incorrectly: Region cannot be empty string"
    )
    assert wrong.pipelines == ()


def test_several_files_are_one_graph_and_a_bad_one_is_one_problem(tmp_path):
    from penstock.config import read_pipelines

    (tmp_path / "a.yaml").write_text("a: {source: {trickle: }, sink: [pipeline: {name: b}]}")
    (tmp_path / "b.yml").write_text("b: {source: a, sink: [bucket: {size: 1b}]}")
    (tmp_path / "ignored.txt").write_text("{{{")
    made = make_plan(read_pipelines(tmp_path))
    assert [pipeline.name for pipeline in made.pipelines] == ["a", "b"]
    (tmp_path / "c.yaml").write_text("c:\n  source: [\n")
    (tmp_path / "d.yaml").write_text(
        "a: {source: {trickle: }, sink: [bucket: {size: x}]}\ncore: {}\nextension: {x: {}}"
    )
    made = make_plan(read_pipelines(tmp_path))
    assert next(problem.message for problem in made.problems if "c.yaml" in problem.file).startswith("Failed to parse")
    messages = [problem.message for problem in made.problems if "d.yaml" in problem.file]
    assert messages == [
        "Failed to parse the configuration: Duplicate key a",
        "Cannot use [core] as pipeline names.",
        "extension/pipeline_configurations and definition must all be defined in a single YAML file if "
        "extension/pipeline_configurations is configured.",
    ]
    assert made.pipelines == ()


def test_nothing_to_read(tmp_path):
    from penstock.config import read_pipelines

    for path in (tmp_path, tmp_path / "none.yaml"):
        assert one(make_plan(read_pipelines(path))).message == f"Pipelines configuration file not found at {path}"
    (tmp_path / "empty.yaml").write_text("version: '2'\n")
    assert "No valid pipeline" in one(make_plan(read_pipelines(tmp_path))).message


def test_a_key_that_stands_twice_hides_no_other_mistake(plan):
    made = plan("""
        a:
          workers: 2
          workers: 3
          source: {trickle: {prot: 1}}
          sink: [bucket: {size: x}]
        b: {source: {trickle: }, sink: [bucket: {size: 1b}]}
        b: {source: {trickle: }, sink: [bucket: {size: y}]}
    """)
    assert [problem.message.split(".")[0][:60] for problem in made.problems] == [
        "Failed to parse the configuration: Duplicate field 'workers'",
        'Parameter "prot" for plugin "trickle" does not exist',
        'Parameter "size" for plugin "bucket" is invalid: Unable to p',
        "Failed to parse the configuration: Duplicate field 'b'",
    ]
    assert made.pipelines == ()
    config = parse_server_config(b"ssl: false\nserver_port: 1\nserver_port: x\nserverPort: y\n", "dp.yaml")
    assert {problem.line for problem in config.problems} >= {3}
    assert config.problems[0].message == "Invalid DataPrepper configuration file. Duplicate field 'server_port'"


def test_a_plugin_beside_its_part_is_to_be_indented(plan):
    made = plan("""
        a:
          source:
          trickle: {}
          sink:
          opensearch: {size: 1b}
          workers: x
    """)
    hints = {problem.path: problem.suggestion for problem in made.problems}
    assert hints["a > trickle"] == "indent trickle below source"
    assert hints["a > opensearch"] == "indent opensearch below sink"
    assert hints["a > workers"] == ""
