"""OpenSearch Ingestion and Data Prepper pipelines in Python."""

from penstock.core.errors import (
    ConfigError,
    EventError,
    ExpressionError,
    ExpressionSyntaxError,
    PenstockError,
    Permanent,
    Transient,
)

__all__ = [
    "ConfigError",
    "EventError",
    "ExpressionError",
    "ExpressionSyntaxError",
    "PenstockError",
    "Permanent",
    "Transient",
    "__version__",
]
__version__ = "0.1.0"
