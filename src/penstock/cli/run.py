"""`penstock run`: run pipelines until they end or the process is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import pickle
import signal
import ssl
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from penstock.core import start

if TYPE_CHECKING:
    from penstock.config.documents import Documents
    from penstock.config.references import References
    from penstock.config.server import ServerConfig, ServerDocument
    from penstock.core.errors import Problem
    from penstock.plan import Plan
    from penstock.runtime.admin import Admin, AdminSettings, Running
    from penstock.runtime.engine import Settings
    from penstock.runtime.secrets import Renewal

log = logging.getLogger("penstock.run")

EXIT_CONFIG = 1
EXIT_INTERRUPTED = 130
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Given:
    """What the command was given."""

    pipelines: Path
    config: Path | None
    data_dir: Path
    drain_timeout: float | None
    log_format: str
    log_level: str
    units: int


@dataclass(frozen=True, slots=True)
class Files:
    """What the files said when the run began: a unit that is started again runs what the others run."""

    documents: Documents
    config: Path | None
    config_text: bytes | None


@dataclass(frozen=True, slots=True)
class Order:
    """What a unit is told first."""

    number: int
    given: Given
    files: Files


def run(
    pipelines: Annotated[Path, typer.Argument(help="A pipeline file, or a directory of them.")],
    config: Annotated[Path | None, typer.Option("--config", "-c", help="data-prepper-config.yaml")] = None,
    units: Annotated[
        int, typer.Option(min=1, envvar="PENSTOCK_UNITS", help="Processes that share the work of the pipelines.")
    ] = 1,
    data_dir: Annotated[
        Path, typer.Option(envvar="PENSTOCK_DATA_DIR", help="Leases, checkpoints and dead letters live here.")
    ] = Path(".penstock"),
    log_format: Annotated[str, typer.Option(envvar="PENSTOCK_LOG_FORMAT", help="text or json")] = "text",
    log_level: Annotated[str, typer.Option(envvar="PENSTOCK_LOG_LEVEL", help="debug, info, warning or error")] = "info",
    drain_timeout: Annotated[
        float | None, typer.Option(min=0.0, help="Longest time to drain at the end, seconds (30 unless set).")
    ] = None,
) -> None:
    """Run pipelines.

    SIGTERM, Ctrl-C and POST /shutdown drain: sources stop, buffers empty, sinks flush. A second signal stops at once.

    Exit codes: 0 ended and drained; 1 nothing could run; 2 wrong usage; 3 a pipeline failed; 4 not everything was
    drained; 130 stopped by a second signal.
    """
    start.describe_options = False
    from penstock.runtime import logs

    if log_format not in logs.FORMATS:
        raise typer.BadParameter(f"{log_format} is not one of {', '.join(logs.FORMATS)}", param_hint="--log-format")
    if log_level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise typer.BadParameter(f"{log_level} is no log level", param_hint="--log-level")
    logs.configure(log_format, log_level)
    given = Given(pipelines, config, data_dir, drain_timeout, log_format, log_level, units)
    code = None
    if units > 1:
        with asyncio.Runner() as runner:  # children inherit what this loop leaves them: see the supervisor
            code = _finish(runner, _run_units(given))
    if code is None:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            code = _finish(runner, _run_here(given))
    raise typer.Exit(code)


def _finish(runner: asyncio.Runner, work: Coroutine[Any, Any, T]) -> T | int:
    try:
        return runner.run(work)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_INTERRUPTED


def loop_factory() -> Any:
    """Makes the fastest event loop there is."""
    try:
        import uvloop
    except ImportError:  # no wheel for this platform
        return None
    return uvloop.new_event_loop


async def _run_here(given: Given) -> int:
    """Run the pipelines in this process."""
    from penstock.core.errors import Permanent
    from penstock.runtime.admin import process_meters
    from penstock.runtime.data_dir import orphans_gone
    from penstock.runtime.engine import Engine

    plan, renewal = await make_the_plan(read_files(given))
    _report(plan)
    admin_settings = _checked_admin_settings(plan, given)
    if admin_settings is None:
        return EXIT_CONFIG
    await orphans_gone(given.data_dir)
    engine = Engine(plan, replace(settings_of(plan.server, given.data_dir, given.drain_timeout), renewal=renewal))
    process_meters(engine.registry)
    admin = await _start_admin(engine, admin_settings, plan)
    if admin is None:
        return EXIT_CONFIG
    _listen_to_signals(engine.stop, _cancel_at_once())
    settle_memory()
    try:
        return await engine.run()
    except Permanent as error:
        log.error("%s", error)
        return EXIT_CONFIG
    finally:
        await admin.stop()


async def _run_units(given: Given) -> int | None:
    """Run the pipelines in several processes. None: one does just as well, and nothing has been started."""
    from penstock.core.errors import Permanent
    from penstock.plan.units import can_share
    from penstock.runtime.admin import process_meters
    from penstock.runtime.data_dir import orphans_gone
    from penstock.runtime.units.supervisor import Supervisor, SupervisorSettings

    files = read_files(given)
    plan, _ = await make_the_plan(files, given.units)  # each unit reads its secrets itself
    if plan.pipelines and not can_share(plan):
        log.warning("No source of these pipelines can be shared: one unit does all the work")
        return None
    _report(plan)
    admin_settings = _checked_admin_settings(plan, given)
    if admin_settings is None:
        return EXIT_CONFIG
    settings = settings_of(plan.server, given.data_dir, given.drain_timeout)
    await orphans_gone(given.data_dir)
    supervisor = Supervisor(
        SupervisorSettings(given.units, given.data_dir, settings.drain_timeout_s, settings.stop_on_failure),
        command=(sys.executable, "-m", "penstock.cli.unit"),
        order=lambda number: pickle.dumps(Order(number, given, files)),
        pipelines=[pipeline.name for pipeline in plan.pipelines],
    )
    process_meters(supervisor.registry)
    admin = await _start_admin(supervisor, admin_settings, plan)
    if admin is None:
        return EXIT_CONFIG
    _listen_to_signals(supervisor.stop, supervisor.stop_at_once)
    try:
        return await supervisor.run()
    except Permanent as error:
        log.error("%s", error)
        return EXIT_CONFIG
    finally:
        await admin.stop()


def read_files(given: Given) -> Files:
    """The pipeline files and the server configuration as they are now."""
    from penstock.config.documents import read_pipelines

    text = None
    if given.config is not None:
        try:
            text = given.config.read_bytes()
        except OSError:  # reading it again tells what is wrong
            text = None
    return Files(read_pipelines(given.pipelines), given.config, text)


async def make_the_plan(files: Files, units: int = 1) -> tuple[Plan, Renewal]:
    """Resolve references and check everything. Returns also how that is done again with other secrets."""
    from penstock.config.server import parse_server_config, read_server_config
    from penstock.plan import make_plan, resolve_references
    from penstock.runtime.secrets import Renewal

    def server(references: References | None = None) -> ServerDocument:
        if files.config is None or files.config_text is None:
            return read_server_config(files.config, references)
        return parse_server_config(files.config_text, str(files.config), references)

    references = await resolve_references(files.documents, server(), environ=os.environ)

    def make(references: References) -> Plan:
        return make_plan(files.documents, server_config=server(references), references=references, units=units)

    return make(references), Renewal(references, make)


def _checked_admin_settings(plan: Plan, given: Given) -> AdminSettings | None:
    """None, and why in the log, when nothing can run."""
    from penstock.config.references import BadReference
    from penstock.core.errors import ConfigError

    if not plan.pipelines:
        log.error("No valid pipeline is available for execution, exiting")
        return None
    try:
        return _admin_settings(plan.server, given.config is not None)
    except (ConfigError, ValueError, OSError, ssl.SSLError, BadReference) as error:
        log.error("The admin endpoints cannot be served: %s", error)
        return None


async def _start_admin(running: Running, settings: AdminSettings, plan: Plan) -> Admin | None:
    """None, and why in the log, when the port cannot be had."""
    from penstock.runtime.admin import Admin

    admin = Admin(running, settings, definitions(plan))
    try:
        await admin.start()
    except OSError as error:
        log.error(
            "The admin port %d cannot be had (%s): stop what uses it, or set server_port in a file for --config",
            settings.port,
            error.strerror or error,
        )
        return None
    log.info("Admin endpoints on port %d", admin.port)
    return admin


def _report(plan: Plan) -> None:
    for problem in plan.warnings:
        log.warning("%s", problem)
    by_pipeline: dict[str, list[Problem]] = {}
    for problem in plan.problems:
        by_pipeline.setdefault(problem.pipeline, []).append(problem)
    for name, problems in by_pipeline.items():
        lines = "\n".join(f"{number}. {problem}" for number, problem in enumerate(problems, 1))
        if name:
            log.error("One or more plugins are not configured correctly in the pipeline: %s.\n%s", name, lines)
        else:
            log.error("The configuration is not correct.\n%s", lines)
    if plan.skipped and plan.pipelines:
        log.error(
            "Construction of pipeline components failed, skipping building of pipeline [%s] and its connected "
            "pipelines",
            ", ".join(plan.skipped),
        )


def settings_of(server: ServerConfig, data_dir: Path, drain_timeout: float | None) -> Settings:
    from penstock.runtime.engine import Settings

    if drain_timeout is None:
        given = server.model_fields_set & {"processor_shutdown_timeout", "sink_shutdown_timeout"}
        drain_timeout = server.processor_shutdown_timeout + server.sink_shutdown_timeout if given else 30.0
    return Settings(
        data_dir=data_dir,
        drain_timeout_s=drain_timeout,
        stop_on_failure="pipeline_shutdown" in server.model_fields_set
        and server.pipeline_shutdown == "on-any-pipeline-failure",
    )


def _admin_settings(server: ServerConfig, has_file: bool) -> AdminSettings:
    """Without a configuration file: plain HTTP on the loopback, as nobody has said who may reach it."""
    from penstock.runtime.admin import AdminSettings

    tls = None
    if server.admin_tls:
        from penstock.lib.tls import key_store_context

        tls = key_store_context(
            server.key_store_file_path,
            server.key_store_password.get_secret_value(),
            key_password=server.private_key_password.get_secret_value(),
        )
    basic = server.authentication.http_basic if server.authentication is not None else None
    labels = {"serviceName": os.environ.get("DATAPREPPER_SERVICE_NAME", "dataprepper"), **server.metric_tags}
    return AdminSettings(
        host=os.environ.get("PENSTOCK_BIND_HOST", "0.0.0.0" if has_file else "127.0.0.1"),  # noqa: S104 (as documented)
        port=server.server_port,
        tls=tls,
        username=basic.username if basic else None,
        password=basic.password.get_secret_value() if basic else None,
        labels=tuple(labels.items()),
        label_filters=tuple((rule.pattern, tuple(rule.tags.items())) for rule in server.metric_tag_filters),
        disabled=tuple(server.disabled_metrics),
        prometheus="Prometheus" in server.metric_registries or not server.metric_registries,
    )


def definitions(plan: Plan) -> list[dict[str, Any]]:
    """The pipelines as they were written: references unresolved, secret options masked."""

    def options(plugin: Any) -> dict[str, Any]:
        return {plugin.name_as_written: plugin.definition}

    shown: list[dict[str, Any]] = []
    for pipeline in plan.pipelines:
        entry: dict[str, Any] = {"workers": pipeline.workers, "delay": pipeline.delay_ms}
        if pipeline.source is not None:
            entry["source"] = options(pipeline.source)
        elif pipeline.upstreams:
            entry["source"] = {"pipeline": {"name": pipeline.upstreams[0]}}
        entry["buffer"] = options(pipeline.buffer)
        entry["processor"] = [options(processor) for processor in pipeline.processors]
        if pipeline.routes:
            entry["routes"] = [{name: condition.text} for name, condition in pipeline.routes]
        entry["sink"] = [options(sink.plugin) for sink in pipeline.sinks]
        shown.append(entry)
    return shown


def _cancel_at_once() -> Callable[[], None]:
    main = asyncio.current_task()

    def cancel() -> None:
        log.warning("Stopped before everything was drained")
        if main is not None:
            main.cancel()

    return cancel


def _listen_to_signals(stop: Callable[[], None], stop_at_once: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    asked = 0

    def hear() -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            log.info("Stopping: draining what is under way. A second signal stops at once.")
            stop()
        else:
            stop_at_once()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, hear)


def settle_memory() -> None:
    """What exists now stays; collect young objects rarely, as events are trees that die by reference count."""
    from penstock.runtime.memory import give_back_large_blocks

    give_back_large_blocks()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
