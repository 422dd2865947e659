"""Dates by the pattern letters of `java.time.format.DateTimeFormatter`, for plugins."""

from penstock.core.dates import (
    EPOCH_UNITS_NS,
    compile_conversion,
    compile_formatter,
    compile_reader,
    validate_locale,
    validate_pattern,
    validate_zone,
)

__all__ = [
    "EPOCH_UNITS_NS",
    "compile_conversion",
    "compile_formatter",
    "compile_reader",
    "validate_locale",
    "validate_pattern",
    "validate_zone",
]
