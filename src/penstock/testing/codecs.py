"""Run one codec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.core.batch import Body, concat
from penstock.sdk import Context, InputCodec, OutputCodec, SinkOptions
from penstock.testing.plugins import checked
from penstock.testing.result import Result, batch_of, results_of


def decode(codec: str, config: Mapping[str, Any], data: bytes) -> list[Result]:
    """The events in `data`. Raises `penstock.ConfigError`; `penstock.EventError` where the bytes are no such data."""
    found, options = checked("input_codec", codec, config)
    built: InputCodec = found.module.build_decoder(options, Context("test-pipeline", codec, kind="codec"))
    decoder = built.decoder()
    first = decoder.feed(data)
    return results_of(concat([first, decoder.finish()]))


def encode(
    codec: str,
    config: Mapping[str, Any],
    events: Sequence[Body],
    *,
    tags: Sequence[str] | Sequence[Sequence[str]] | None = None,
    context: Mapping[str, Any] | None = None,
) -> tuple[bytes, str]:
    """The bytes of one object with `events`, and the file name ending without a dot.

    `context` holds what every sink may be given: `include_keys`, `exclude_keys`, `tags_target_key`.
    """
    found, options = checked("output_codec", codec, config)
    given = dict(context or {})
    sink_options = SinkOptions(
        given.get("tags_target_key"), tuple(given.get("include_keys") or ()), tuple(given.get("exclude_keys") or ())
    )
    ctx = Context("test-pipeline", codec, kind="codec", sink_options=sink_options)
    built: OutputCodec = found.module.build_encoder(options, ctx)
    encoder = built.encoder()
    data = encoder.start() + encoder.write(batch_of(events, None, tags)) + encoder.finish()
    return data, built.extension
