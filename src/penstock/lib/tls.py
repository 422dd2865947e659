"""TLS contexts for servers and clients, from PEM files and PKCS12 key stores. What is wrong is a `ConfigError`."""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path

from penstock.core.errors import ConfigError

_JAVA_STORES = (b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce")


def check_local(path: str, what: str) -> None:
    """Refuse places of certificates that are not files of this machine. Does no I/O."""
    if path.startswith("s3://"):
        raise ConfigError(f"{what}: certificates from Amazon S3 are not supported yet; give the path of a file")
    if path.startswith("arn:"):
        raise ConfigError(
            f"{what}: certificates from AWS Certificate Manager are not supported yet; give the path of a file"
        )


def server_context(cert_file: str, key_file: str, *, key_password: str | None = None) -> ssl.SSLContext:
    """TLS 1.2 and later with a certificate chain and its private key in PEM form."""
    context = _server_defaults()
    _load_pem(context, cert_file, key_file, key_password)
    return context


def key_store_context(path: str, password: str = "", *, key_password: str = "") -> ssl.SSLContext:
    """TLS 1.2 and later with the certificate and key of a PKCS12 key store.

    PKCS12 has one password for the store and its key; `key_password` is tried where `password` does not fit.
    """
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
    from cryptography.hazmat.primitives.serialization.pkcs12 import PKCS12Certificate, load_pkcs12

    check_local(path, "key store")
    store = _read(path, "key store")
    if store[:4] in _JAVA_STORES:
        target = Path(path).with_suffix(".p12")
        raise ConfigError(
            f"key store {path}: JKS is not read here; convert it once with: "
            f"keytool -importkeystore -srckeystore {path} -destkeystore {target} -deststoretype PKCS12"
        )
    reason = ""
    for attempt in dict.fromkeys((password, key_password)):
        try:
            content = load_pkcs12(store, attempt.encode() if attempt else None)
            break
        except ValueError as error:
            reason = str(error)
    else:
        raise ConfigError(f"key store {path} cannot be opened: {reason}")
    if content.key is None or content.cert is None:
        raise ConfigError(f"key store {path} holds no private key with a certificate")
    secret = os.urandom(16).hex()
    # What `cryptography` reads the standard library takes from files only: encrypted, readable by us, gone at once.
    key = content.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(secret.encode()))
    chain: list[PKCS12Certificate] = [content.cert, *content.additional_certs]
    context = _server_defaults()
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        key_file, cert_file = Path(folder) / "key.pem", Path(folder) / "chain.pem"
        key_file.write_bytes(key)
        cert_file.write_bytes(b"".join(one.certificate.public_bytes(Encoding.PEM) for one in chain))
        _load_pem(context, str(cert_file), str(key_file), secret)
    return context


def client_context(
    *,
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    key_password: str | None = None,
    insecure: bool = False,
) -> ssl.SSLContext:
    """For a client. `ca_file` is trusted instead of the system's authorities; `insecure` trusts everybody."""
    for path in (ca_file, cert_file, key_file):
        if path is not None:
            check_local(path, "certificate")
    if ca_file is not None and not insecure:
        _read(ca_file, "certificate authority file")
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(f"certificate authority file {ca_file} cannot be used: {error}") from None
    else:
        context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert_file is not None:
        _load_pem(context, cert_file, key_file, key_password)
    return context


def _server_defaults() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _load_pem(context: ssl.SSLContext, cert_file: str, key_file: str | None, password: str | None) -> None:
    for path, what in ((cert_file, "certificate file"), (key_file, "key file")):
        if path is not None:
            check_local(path, what)
            _read(path, what)
    try:
        # Without the callable a missing password would be asked for at the terminal.
        context.load_cert_chain(cert_file, key_file, lambda: password or "")
    except (ssl.SSLError, ValueError, OSError) as error:
        raise ConfigError(f"certificate {cert_file} and key {key_file or 'in it'} cannot be used: {error}") from None


def _read(path: str, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{what} {path} cannot be read: {error.strerror}") from None
