"""`penstock run` as a command: what it tells, where its state lives, and how it ends. No server is needed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.cli.run import Given, _admin_settings, definitions, make_the_plan, read_files, settings_of
from penstock.config.documents import parse_pipelines
from penstock.config.server import read_server_config
from penstock.plan import make_plan

OK = 'version: "2"\np:\n  source: {stdin: }\n  sink: [{file: {path: out.txt}}]\n'
LAYOUT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3} \[\S+\] (INFO |WARN |ERROR|DEBUG|FATAL) [\w.]+ - .+")


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """`run(yaml, "--log-level", "debug", stdin="a\\n")` → exit code, log and output file of the command."""

    def call(
        pipelines: str, *arguments: str, stdin: str = "", config: str = "ssl: false\nserver_port: 0\n", **environ: str
    ) -> SimpleNamespace:
        (tmp_path / "pipelines.yaml").write_text(pipelines)
        (tmp_path / "config.yaml").write_text(config)
        done = subprocess.run(
            command(*arguments),
            input=stdin,
            cwd=tmp_path,
            env={**os.environ, "PENSTOCK_BIND_HOST": "127.0.0.1", **environ},
            capture_output=True,
            text=True,
            timeout=25,
            check=False,
        )
        out = tmp_path / "out.txt"
        return SimpleNamespace(
            code=done.returncode, log=done.stderr, out=out.read_text() if out.exists() else "", folder=tmp_path
        )

    return call


def command(*arguments: str) -> list[str]:
    return [
        *(sys.executable, "-m", "penstock.cli", "run", "pipelines.yaml", "--config", "config.yaml"),
        *arguments,
    ]


def test_it_ends_by_itself_when_every_source_has_come_to_its_end(run: Any) -> None:
    done = run(OK, stdin="a\nb\n")
    assert (done.code, done.out) == (0, '{"message":"a"}\n{"message":"b"}\n')
    lines = done.log.splitlines()
    assert lines
    assert [line for line in lines if not LAYOUT.fullmatch(line)] == []
    assert (done.folder / ".penstock" / "lock").exists(), "state lives here unless another place is named"


def test_a_directory_of_files_is_one_configuration(run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "front.yaml").write_text(
        'version: "2"\nfront:\n  source: {stdin: }\n  sink: [{pipeline: {name: back}}]\n'
    )
    (folder / "back.yml").write_text('version: "2"\nback:\n  source: front\n  sink: [{file: {path: out.txt}}]\n')
    (tmp_path / "config.yaml").write_text("ssl: false\nserver_port: 0\n")
    done = subprocess.run(
        [sys.executable, "-m", "penstock.cli", "run", "parts", "--config", "config.yaml"],
        input="a\n",
        cwd=tmp_path,
        env={**os.environ, "PENSTOCK_BIND_HOST": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.txt").read_text() == '{"message":"a"}\n'


def test_every_mistake_is_told_with_its_place_and_nothing_is_started(run: Any) -> None:
    done = run('version: "2"\np:\n  source: {stdin: }\n  processor: [{grokk: {}}]\n  sink: [{file: {pth: x}}]\n')
    assert done.code == 1
    assert "One or more plugins are not configured correctly in the pipeline: p.\n" in done.log
    assert "1. pipelines.yaml:4: p > processor 1 grokk: " in done.log
    assert "2. pipelines.yaml:5: p > sink 1 file" in done.log
    assert "did you mean grok?" in done.log
    assert "No valid pipeline is available for execution, exiting" in done.log
    assert not (done.folder / ".penstock").exists()


def test_a_pipeline_that_cannot_be_built_leaves_the_others(run: Any) -> None:
    done = run(OK + "broken:\n  source: {http: {prt: 1}}\n  sink: [{noop: }]\n", stdin="a\n")
    assert (done.code, done.out) == (3, '{"message":"a"}\n')
    assert "skipping building of pipeline [broken] and its connected pipelines" in done.log


@pytest.mark.parametrize(
    ("links", "both"),
    [
        ("a:\n  source: {stdin: }\n  sink: [{pipeline: {name: nowhere}}]\n", ("a", "nowhere")),
        (
            "a:\n  source: b\n  sink: [{pipeline: {name: b}}]\nb:\n  source: a\n  sink: [{pipeline: {name: a}}]\n",
            ("a", "b"),
        ),
        ("a:\n  source: {stdin: }\n  sink: [{noop: }]\nb:\n  source: a\n  sink: [{noop: }]\n", ("a", "b")),
    ],
    ids=["unknown", "cycle", "one-sided"],
)
def test_connections_that_do_not_fit_are_told_with_both_ends(run: Any, links: str, both: tuple[str, str]) -> None:
    done = run('version: "2"\n' + links)
    assert done.code == 1
    told = next(line for line in done.log.splitlines() if line.startswith("1. pipelines.yaml:"))
    assert all(re.search(rf"\b{name}\b", told) for name in both), told


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("server_port: [\n", "config.yaml:2: Invalid DataPrepper configuration file."),
        ("server_prt: 1\n", 'Did you mean "server_port"?'),
        ("ssl: true\nkey_store_file_path: nowhere.p12\nserver_port: 0\n", "nowhere.p12"),
    ],
)
def test_a_server_configuration_that_cannot_be_used_is_told(run: Any, config: str, message: str) -> None:
    done = run(OK, config=config)
    assert done.code == 1
    assert message in done.log
    assert "Traceback" not in done.log
    assert done.out == ""


@pytest.mark.parametrize(
    "arguments",
    [("--units", "0"), ("--log-format", "xml"), ("--log-level", "loud"), ("--drain-timeout", "-1"), ("--colour",)],
    ids=lambda arguments: arguments[0],
)
def test_wrong_usage(run: Any, arguments: tuple[str, ...]) -> None:
    done = run(OK, *arguments)
    assert done.code == 2
    assert arguments[0] in done.log


def test_one_unit_does_the_work_where_no_source_can_be_shared(run: Any) -> None:
    done = run(OK, stdin="a\nb\n", PENSTOCK_UNITS="3")
    assert (done.code, done.out) == (0, '{"message":"a"}\n{"message":"b"}\n')
    assert "No source of these pipelines can be shared: one unit does all the work" in done.log


def test_what_several_units_cannot_do_is_refused_by_name(run: Any) -> None:
    done = run(
        "p:\n  source: {http: {port: 0}}\n"
        "  processor: [{aggregate: {identification_keys: [a], action: {count: }}}]\n  sink: [{noop: }]\n",
        *("--units", "2"),
    )
    assert done.code == 1
    assert (
        "1. pipelines.yaml:3: p > processor 1 aggregate: aggregate is not supported yet with more than one" in done.log
    )
    assert "local_mode: true" in done.log


def test_pipelines_that_are_not_there(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "penstock.cli", "run", "nowhere.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert done.returncode == 1
    assert "Pipelines configuration file not found at nowhere.yaml" in done.stderr


def test_log_lines_for_machines(run: Any) -> None:
    done = run(OK, "--log-format", "json", "--log-level", "debug", stdin="a\n")
    assert done.code == 0
    lines = [json.loads(line) for line in done.log.splitlines()]
    assert lines
    assert all({"time", "level", "thread", "logger", "message"} <= set(line) for line in lines)


def test_the_environment_gives_options_too(run: Any, tmp_path: Path) -> None:
    done = run(OK, stdin="a\n", PENSTOCK_DATA_DIR=str(tmp_path / "state"), PENSTOCK_LOG_LEVEL="error")
    assert (done.code, done.log) == (0, "")
    assert (tmp_path / "state" / "lock").exists()
    assert not (tmp_path / ".penstock").exists()


def test_a_data_directory_that_cannot_be_made_is_told(run: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run(OK, "--data-dir", "file/state", stdin="a\n")
    assert (done.code, done.out) == (1, "")
    assert "the data directory file/state cannot be used (Not a directory): choose another one" in done.log
    assert "Traceback" not in done.log


def test_a_signal_drains_while_the_source_still_reads(tmp_path: Path) -> None:
    (tmp_path / "pipelines.yaml").write_text(OK)
    (tmp_path / "config.yaml").write_text("ssl: false\nserver_port: 0\n")
    process = subprocess.Popen(
        command(),
        cwd=tmp_path,
        env={**os.environ, "PENSTOCK_BIND_HOST": "127.0.0.1"},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    try:
        process.stdin.write("".join(f"{n}\n" for n in range(1000)))
        process.stdin.flush()
        out = tmp_path / "out.txt"
        deadline = time.monotonic() + 20
        while not (out.exists() and out.read_text().endswith('"999"}\n')):
            assert time.monotonic() < deadline, "the lines arrive while the input is open"
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        log = process.stderr.read() if process.stderr is not None else ""
        assert process.wait(20) == 0, log
    finally:
        process.kill()
        process.communicate()
    assert out.read_text() == "".join(f'{{"message":"{n}"}}\n' for n in range(1000))
    assert "Traceback" not in log


def test_draining_takes_as_long_as_the_configuration_allows(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"

    def drain_s(text: str, option: float | None = None) -> float:
        file.write_text(text)
        return settings_of(read_server_config(file).config, tmp_path, option).drain_timeout_s

    assert drain_s("ssl: false\n") == 30
    assert drain_s("processor_shutdown_timeout: 5s\nsink_shutdown_timeout: 1500ms\n") == 6.5
    assert drain_s("processor_shutdown_timeout: 5s\nsink_shutdown_timeout: 5s\n", 2.0) == 2


def test_the_admin_endpoints_are_open_to_others_only_when_a_file_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PENSTOCK_BIND_HOST", raising=False)
    settings = _admin_settings(read_server_config(None).config, False)
    assert (settings.host, settings.port, settings.tls) == ("127.0.0.1", 4900, None)
    file = tmp_path / "config.yaml"
    file.write_text("ssl: false\nserver_port: 4901\nauthentication: {http_basic: {username: u, password: p}}\n")
    settings = _admin_settings(read_server_config(file).config, True)
    assert (settings.host, settings.port, settings.username, settings.password) == ("0.0.0.0", 4901, "u", "p")
    monkeypatch.setenv("PENSTOCK_BIND_HOST", "127.0.0.2")
    assert _admin_settings(read_server_config(file).config, True).host == "127.0.0.2"


def test_a_plan_is_made_again_with_other_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUT", "first.txt")
    path, config = tmp_path / "p.yaml", tmp_path / "config.yaml"
    path.write_text(OK.replace("out.txt", "'${{env:OUT}}'"))
    config.write_text("server_port: 4999")
    files = read_files(Given(path, config, tmp_path, None, "text", "info", 1))
    plan, renewal = asyncio.run(make_the_plan(files))
    path.unlink()
    config.unlink()
    references = replace(renewal.references, values=dict.fromkeys(renewal.references.values, "second.txt"))
    again = renewal.make(references)
    assert [str(each.pipelines[0].sinks[0].plugin.config.path) for each in (plan, again)] == ["first.txt", "second.txt"]
    assert again.server.server_port == 4999
    assert "first.txt" not in repr(renewal)


def test_definitions_show_no_secrets() -> None:
    text = (
        "a:\n  source: {http: {authentication: {http_basic: {username: u, password: hidden}}}}\n"
        "  route: [{errors: '/level == \"error\"'}]\n"
        "  sink: [{opensearch: {hosts: ['http://x:9200'], index: i, username: u, password: '${{env:P}}'}}, "
        "{pipeline: {name: b}}]\n"
        "b:\n  source: a\n  sink: [{noop: }]\n"
    )
    plan = make_plan(parse_pipelines([("p.yaml", ('version: "2"\n' + text).encode())]))
    shown = definitions(plan)
    assert "hidden" not in json.dumps(shown)
    assert shown[0]["routes"] == [{"errors": '/level == "error"'}]
    assert [*shown[1]["source"]] == ["pipeline"]
    assert shown[1]["source"]["pipeline"]["name"] == "a"
