"""An authority of the tests' own, and the certificates that it signs."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Signed:
    """The files of a certificate and its key, and of the authority that signed it."""

    root: Path
    certificate: Path
    key: Path


def signed(directory: Path, name: str, *addresses: str) -> Signed:
    """A certificate for the common name ``name``, and for ``addresses``, by a new authority."""
    directory.mkdir(parents=True, exist_ok=True)
    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority of {directory.name}"[:64])])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)

    def begun(of: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(of).issuer_name(issuer).public_key(public)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(1))
        return builder.not_valid_after(now + datetime.timedelta(1))

    may_sign = x509.BasicConstraints(ca=True, path_length=None)
    root = begun(issuer, authority.public_key()).add_extension(may_sign, critical=True).sign(authority, hashes.SHA256())
    names = x509.SubjectAlternativeName([_named(address) for address in addresses or (name,)])
    certificate = begun(subject, key.public_key()).add_extension(names, critical=False).sign(authority, hashes.SHA256())
    files = Signed(directory / "root.crt", directory / f"{name}.crt", directory / f"{name}.key")
    files.root.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    files.key.chmod(0o600)
    return files


def _named(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)
