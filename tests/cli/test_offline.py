import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import penstock.sdk  # noqa: F401 (before a command runs in this process: only then have options descriptions)
from penstock.cli import COMMANDS, _loaded, application

GOOD = "p:\n  source: {http: }\n  sink:\n    - stdout:\n"
BAD = "p:\n  source: {http: {prot: 1}}\n  sink:\n    - stdotu:\n"


def call(*arguments, environ=None):
    arguments = [str(argument) for argument in arguments]
    return CliRunner().invoke(application(arguments, {}), arguments, prog_name="penstock", env=environ)


@pytest.fixture
def file(tmp_path):
    def write(text, name="pipelines.yaml"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_help_loads_nothing_heavy():
    code = (
        "import sys, penstock.cli\n"
        "sys.argv = ['penstock', '--help']\n"
        "try: penstock.cli.main()\n"
        "except SystemExit as error: assert not error.code, error.code\n"
        "heavy = {'pydantic', 'rich', 'asyncio', 'yaml', 'aiohttp', 'botocore', 'orjson'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_its_exit_codes(name):
    done = call(name, "--help")
    assert done.exit_code == 0
    command = _loaded(name)
    groups = getattr(command, "registered_commands", None)
    if groups is None:
        assert command.__doc__.split("\n")[0][:20] in done.output
        return
    for inner in groups:
        inner_done = call(name, inner.name, "--help")
        assert inner_done.exit_code == 0 and "Exit codes" in inner_done.output


def test_the_version():
    from penstock import __version__

    assert call("--version").output == f"penstock {__version__}\n"


def test_valid_pipelines(file):
    done = call("validate", file(GOOD))
    assert (done.exit_code, done.output) == (0, "OK: 1 pipeline, no warnings\n")


def test_problems_are_grouped_with_place_reason_and_hint(file):
    path = file(BAD)
    done = call("validate", path)
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert lines[0] == f"{path}:2: p > source http > prot"
    assert lines[1].startswith('  error: Parameter "prot" for plugin "http" does not exist.')
    assert lines[2] == "  hint: write port instead of prot"
    assert lines[4] == f"{path}:4: p > sink 1 stdotu"
    assert lines[6] == "  hint: did you mean stdout?"
    assert lines[-1] == "FAILED: 2 problems, no warnings in 1 pipeline"
    assert "\x1b" not in done.output


def test_problems_as_json(file):
    result = json.loads(call("validate", file(BAD), "--json").output)
    assert (result["valid"], result["skipped"], result["pipelines"]) == (False, ["p"], [])
    assert [(problem["line"], problem["plugin"]) for problem in result["problems"]] == [(2, "http"), (4, "stdotu")]


def test_values_that_are_missing_here_are_warned_of(file):
    path = file(GOOD.replace("{http: }", "{http: {path: '${{env:PENSTOCK_NOT_SET}}', port: '${{env:PORT_HERE}}'}}"))
    done = call("validate", path, environ={"PORT_HERE": "2021"})
    assert done.exit_code == 0
    warning = "warning: The environment variable PENSTOCK_NOT_SET is not set here."
    assert f"p > source http > path\n  {warning}" in done.output
    assert "PORT_HERE" not in done.output


def test_the_server_configuration_is_checked_too(file):
    done = call("validate", file(GOOD), "--config", file("server_port: -1\npeer_forwarder: {}\n", "server.yaml"))
    assert done.exit_code == 1
    assert "Server port must be a positive integer" in done.output
    assert "peer_forwarder has no effect here." in done.output


@pytest.mark.parametrize(
    "arguments", [["validate"], ["validate", "x", "--profile", "none"], ["nonsense"], ["plugins", "--kind", "x"]]
)
def test_wrong_usage(arguments):
    assert call(*arguments).exit_code == 2


def test_a_list_of_plugins():
    done = call("plugins", "--kind", "sink")
    assert done.exit_code == 0
    assert "  stdout " in done.output
    listed = json.loads(call("plugins", "--json").output)
    assert {"kind": "buffer", "name": "bounded_blocking"}.items() <= next(
        page for page in listed if page["kind"] == "buffer"
    ).items()


def test_one_plugin():
    done = call("plugins", "bounded_blocking")
    assert "buffer_size  (int, default 12800)" in done.output
    assert "Example: " in done.output
    assert "sink noop" in call("plugins", "drop").output
    missing = call("plugins", "stdotu")
    assert "did you mean grok?" in call("plugins", "groc").output
    assert missing.exit_code == 1
    assert "Unable to find a plugin named 'stdotu'" in missing.output


def test_pages_are_written_once_and_checked(tmp_path):
    folder = tmp_path / "reference"
    assert call("docs", "--directory", folder, "--check").exit_code == 1
    assert call("docs", "--directory", folder).exit_code == 0
    assert call("docs", "--directory", folder, "--check").exit_code == 0
    page = (folder / "buffer.bounded_blocking.md").read_text()
    assert "| `buffer_size` | int | `12800` | Capacity in events" in page
    assert "(buffer.bounded_blocking.md)" in (folder / "index.md").read_text()
    (folder / "sink.gone.md").write_text("old")
    (folder / "index.md").write_text("changed")
    stale = call("docs", "--directory", folder, "--check")
    assert stale.exit_code == 1
    assert "sink.gone.md is stale" in stale.output
    assert "index.md is stale" in stale.output
    call("docs", "--directory", folder)
    assert not (folder / "sink.gone.md").exists()


def test_the_schema_knows_plugins_and_refers_only_to_what_it_defines():
    schema = json.loads(call("schema").output)
    definitions = schema["$defs"]

    def references(node):
        if isinstance(node, dict):
            for key, value in node.items():
                if key == "$ref":
                    yield value.removeprefix("#/$defs/")
                yield from references(value)
        elif isinstance(node, list):
            for item in node:
                yield from references(item)

    assert set(references(schema)) <= set(definitions)
    assert "x-plugin" not in json.dumps(schema)
    assert "stdout" in definitions["sink"]["properties"]
    assert {"routes", "include_keys", "forward_to"} <= set(definitions["sink.stdout"]["properties"])
    assert definitions["pipeline"]["additionalProperties"] is False
