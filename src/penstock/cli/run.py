"""`penstock run`: run pipelines until they end or the process is told to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.core import start

if TYPE_CHECKING:
    from penstock.config.server import ServerConfig
    from penstock.core.errors import Problem
    from penstock.plan import Plan
    from penstock.runtime.admin import AdminSettings
    from penstock.runtime.engine import Settings

log = logging.getLogger("penstock.run")

EXIT_CONFIG = 1
EXIT_INTERRUPTED = 130


def run(
    pipelines: Annotated[Path, typer.Argument(help="A pipeline file, or a directory of them.")],
    config: Annotated[Path | None, typer.Option("--config", "-c", help="data-prepper-config.yaml")] = None,
    units: Annotated[int, typer.Option(min=1, help="Processes that share the work. One for now.")] = 1,
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
    if units > 1:
        raise typer.BadParameter(
            "more than one unit is not supported yet: start further processes with data directories and ports of "
            "their own",
            param_hint="--units",
        )
    logs.configure(log_format, log_level)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        try:
            code = runner.run(_run(pipelines, config, data_dir, drain_timeout))
        except (KeyboardInterrupt, asyncio.CancelledError):
            code = EXIT_INTERRUPTED
    raise typer.Exit(code)


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:  # no wheel for this platform
        return None
    return uvloop.new_event_loop


async def _run(path: Path, config_path: Path | None, data_dir: Path, drain_timeout: float | None) -> int:
    from penstock.config.documents import read_pipelines
    from penstock.config.references import BadReference
    from penstock.config.server import read_server_config
    from penstock.core.errors import ConfigError, Permanent
    from penstock.plan import make_plan, resolve_references
    from penstock.runtime.admin import Admin
    from penstock.runtime.engine import Engine

    documents = read_pipelines(path)
    server = read_server_config(config_path)
    references = await resolve_references(documents, server, environ=os.environ)
    if config_path is not None:
        server = read_server_config(config_path, references)
    plan = make_plan(documents, server_config=server, references=references)
    _report(plan)
    if not plan.pipelines:
        log.error("No valid pipeline is available for execution, exiting")
        return EXIT_CONFIG
    try:
        admin_settings = _admin_settings(plan.server, config_path is not None)
    except (ConfigError, ValueError, OSError, ssl.SSLError, BadReference) as error:
        log.error("The admin endpoints cannot be served: %s", error)
        return EXIT_CONFIG
    engine = Engine(plan, _settings(plan.server, data_dir, drain_timeout))
    admin = Admin(engine, admin_settings, definitions(plan))
    try:
        await admin.start()
    except OSError as error:
        log.error(
            "The admin port %d cannot be had (%s): stop what uses it, or set server_port in a file for --config",
            admin_settings.port,
            error.strerror or error,
        )
        return EXIT_CONFIG
    log.info("Admin endpoints on port %d", admin.port)
    _listen_to_signals(engine)
    _settle_memory()
    try:
        return await engine.run()
    except Permanent as error:
        log.error("%s", error)
        return EXIT_CONFIG
    finally:
        await admin.stop()


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


def _settings(server: ServerConfig, data_dir: Path, drain_timeout: float | None) -> Settings:
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


def _listen_to_signals(engine: Any) -> None:
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            log.info("Stopping: draining what is under way. A second signal stops at once.")
            engine.stop()
        elif main is not None:
            log.warning("Stopped before everything was drained")
            main.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)


def _settle_memory() -> None:
    """What exists now stays; collect young objects rarely, as events are trees that die by reference count."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
