"""Try plugins, expressions and whole pipelines in memory; the same tools test Penstock itself.

    >>> run_processor("add_entries", {"entries": [{"key": "env", "value": "prod"}]}, [{"n": 1}])[0].body
    {'n': 1, 'env': 'prod'}

Configuration errors raise `penstock.ConfigError`; expressions raise `penstock.ExpressionError`, and its subclass
`penstock.ExpressionSyntaxError` where they do not parse.
"""

from penstock.testing.bulk import render_bulk
from penstock.testing.codecs import decode, encode
from penstock.testing.expressions import compile_expression, evaluate
from penstock.testing.pipelines import run_pipeline
from penstock.testing.processors import build_processor, run_processor
from penstock.testing.result import Result

__all__ = [
    "Result",
    "build_processor",
    "compile_expression",
    "decode",
    "encode",
    "evaluate",
    "render_bulk",
    "run_pipeline",
    "run_processor",
]
