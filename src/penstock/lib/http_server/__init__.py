"""A thin HTTP/1.1 server on asyncio and llhttp; sources and the admin endpoints stand on it."""

from penstock.lib.http_server.connection import Handler, Limits
from penstock.lib.http_server.message import Request, Response
from penstock.lib.http_server.server import HttpServer

__all__ = ["Handler", "HttpServer", "Limits", "Request", "Response"]
