"""AWS access for all plugins: one credential chain, shared clients, signed requests, verdicts on errors.

`async with sessions() as aws: client = await aws.client("dynamodb", options)` gives a client that all users of the same
service, region and role share; the last user to leave closes them. `signer("es", region, options)` signs requests that
another HTTP client sends. Endpoints follow `AWS_ENDPOINT_URL` and `AWS_ENDPOINT_URL_<SERVICE>`.

botocore is loaded by the first call, never by importing this package.
"""

from penstock.lib.aws.errors import THROTTLED, code_of, status_of, verdict
from penstock.lib.aws.objects import ObjectAddress, read_object
from penstock.lib.aws.sessions import Access, AwsSessions, S3Style, sessions
from penstock.lib.aws.signing import Signer, signer

__all__ = [
    "THROTTLED",
    "Access",
    "AwsSessions",
    "ObjectAddress",
    "S3Style",
    "Signer",
    "code_of",
    "read_object",
    "sessions",
    "signer",
    "status_of",
    "verdict",
]
