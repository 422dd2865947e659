"""YAML to checked documents: pipeline files, the server configuration, references; every problem with its line."""

from penstock.config.documents import Documents, parse_pipelines, read_pipelines
from penstock.config.references import Reference, References
from penstock.config.server import ServerConfig, ServerDocument, parse_server_config, read_server_config

__all__ = [
    "Documents",
    "Reference",
    "References",
    "ServerConfig",
    "ServerDocument",
    "parse_pipelines",
    "parse_server_config",
    "read_pipelines",
    "read_server_config",
]
