"""Real handshakes with what each function makes, and a message for everything that is wrong."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, NoEncryption, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from cryptography.x509 import load_pem_x509_certificate

from penstock.core.errors import ConfigError
from penstock.lib import tls


class Files:
    """An authority, a certificate with its key, and key stores with the same."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        self.folder = folder
        self.ca, self.cert, self.key = (str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem"))
        authority.cert_pem.write_to_path(self.ca)
        Path(self.cert).write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(self.key)
        self._key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        self._cert = load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())

    def key_store(self, password: str) -> str:
        path = self.folder / "store.p12"
        lock = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        path.write_bytes(serialize_key_and_certificates(b"own", self._key, self._cert, None, lock))
        return str(path)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost") -> str:
    """Shake hands in memory and return the protocol version."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0].version() or ""


def test_pem_files(files: Files) -> None:
    server = tls.server_context(files.cert, files.key)
    assert handshake(server, tls.client_context(ca_file=files.ca)) == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, tls.client_context())
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(server, tls.client_context(ca_file=files.ca), "elsewhere")
    assert handshake(server, tls.client_context(insecure=True), "elsewhere") == "TLSv1.3"


@pytest.mark.parametrize("password", ["", "changeit"])
def test_key_store(files: Files, password: str) -> None:
    server = tls.key_store_context(files.key_store(password), password)
    assert handshake(server, tls.client_context(ca_file=files.ca)) == "TLSv1.3"
    other_way = tls.key_store_context(files.key_store(password), "", key_password=password)
    assert handshake(other_way, tls.client_context(ca_file=files.ca)) == "TLSv1.3"


def test_client_certificate(files: Files) -> None:
    server = tls.server_context(files.cert, files.key)
    server.load_verify_locations(files.ca)
    server.verify_mode = ssl.CERT_REQUIRED
    client = tls.client_context(ca_file=files.ca, cert_file=files.cert, key_file=files.key)
    assert handshake(server, client) == "TLSv1.3"


def test_old_protocols_are_refused(files: Files) -> None:
    old = tls.client_context(ca_file=files.ca)
    with pytest.warns(DeprecationWarning):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        handshake(tls.server_context(files.cert, files.key), old)


def test_what_is_wrong_is_said(files: Files, tmp_path: Path) -> None:
    java = tmp_path / "keystore.jks"
    java.write_bytes(b"\xfe\xed\xfe\xed" + bytes(30))
    broken = tmp_path / "broken"
    broken.write_text("no certificate")
    (tmp_path / "other").mkdir()
    other = Files(tmp_path / "other")
    wrongs = {
        r"certificate file .*missing cannot be read: No such file": lambda: tls.server_context("missing", files.key),
        r"certificate .*broken and key .* cannot be used": lambda: tls.server_context(str(broken), files.key),
        r"certificate .* and key .*broken cannot be used": lambda: tls.server_context(files.cert, str(broken)),
        r"certificate .* and key .*other.key.pem cannot be used": lambda: tls.server_context(files.cert, other.key),
        r"authority file .*broken cannot be used": lambda: tls.client_context(ca_file=str(broken)),
        r"from Amazon S3 are not supported yet": lambda: tls.server_context("s3://bucket/cert", files.key),
        r"from AWS Certificate Manager are not supported yet": lambda: tls.client_context(ca_file="arn:aws:acm:x"),
        r"keytool -importkeystore -srckeystore .*keystore.jks -destkeystore .*keystore.p12 -deststoretype PKCS12": (
            lambda: tls.key_store_context(str(java), "x")
        ),
        r"key store .* cannot be opened": lambda: tls.key_store_context(files.key_store("right"), "wrong"),
        r"key store .*broken cannot be opened": lambda: tls.key_store_context(str(broken), ""),
    }
    for message, attempt in wrongs.items():
        with pytest.raises(ConfigError, match=message):
            attempt()
