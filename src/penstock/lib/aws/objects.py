"""Small objects of S3 by address: templates, policies, certificates."""

from __future__ import annotations

from typing import NamedTuple

from penstock.core.errors import Permanent
from penstock.lib.aws.errors import verdict
from penstock.lib.aws.sessions import Access, sessions

OBJECT_BYTES_MAX = 16 * 1024 * 1024


class ObjectAddress(NamedTuple):
    """`s3://bucket/key`."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> ObjectAddress:
        """Raises ValueError where it is none."""
        bucket, _, key = text.removeprefix("s3://").partition("/")
        if not text.startswith("s3://") or not bucket or not key:
            raise ValueError(f"{text} is no address of an object: s3://bucket/key")
        return cls(bucket, key)


async def read_object(address: str, access: Access, *, bytes_max: int = OBJECT_BYTES_MAX) -> bytes:
    """The object at an address. Raises `Transient` or `Permanent`; missing rights and objects may come yet."""
    place = ObjectAddress.parse(address)
    async with sessions() as aws:
        try:
            client = await aws.client("s3", access)
            reply = await client.get_object(Bucket=place.bucket, Key=place.key)
            async with reply["Body"] as stream:
                body: bytes = await stream.read(bytes_max + 1)
        except Exception as error:
            known = verdict(error)
            if known is None:
                raise
            raise type(known)(f"{address} cannot be read: {known}") from error
    if len(body) > bytes_max:
        raise Permanent(f"{address} is larger than {bytes_max} bytes")
    return body
