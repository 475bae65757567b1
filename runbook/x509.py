"""Certificates, from the PEM text of a host's files. Private keys are never read by this program."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from runbook.shape import ParseError, brief

if TYPE_CHECKING:
    from cryptography import x509


@dataclass(frozen=True)
class Certificate:
    """A certificate's public facts. ``names`` are its SANs: DNS names and IP addresses; ``fingerprint`` is SHA-256."""

    subject: str
    issuer: str
    not_before: datetime
    not_after: datetime
    fingerprint: str
    names: tuple[str, ...]


def certificate(text: str) -> Certificate:
    """The first certificate of a PEM text. ParseError where there is none, or none that can be read."""
    from cryptography import x509  # not above: the preview lists the checks too, and reads no certificate
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        found = x509.load_pem_x509_certificate(text.encode())
        return Certificate(
            subject=found.subject.rfc4514_string(),
            issuer=found.issuer.rfc4514_string(),
            not_before=found.not_valid_before_utc,
            not_after=found.not_valid_after_utc,
            fingerprint=found.fingerprint(SHA256()).hex(),
            names=_names(found.extensions),
        )
    except (
        ValueError,
        TypeError,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
        x509.InvalidVersion,
    ) as error:
        raise ParseError(f"no certificate that can be read: {brief(error)}") from None


def issued(text: str, by: str) -> bool:
    """Whether the first certificate of ``text`` was signed by one of ``by``, or by one that follows it in ``text``.

    Raises ParseError where one of them cannot be read.
    """
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        first, *between = x509.load_pem_x509_certificates(text.encode())
        issuers = [*between, *x509.load_pem_x509_certificates(by.encode())]
    except (ValueError, TypeError) as error:
        raise ParseError(f"no certificate that can be read: {brief(error)}") from None
    for issuer in issuers:
        try:
            first.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False


def _names(extensions: x509.Extensions) -> tuple[str, ...]:
    from cryptography import x509

    try:
        found = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = (str(address) for address in found.get_values_for_type(x509.IPAddress))
    return (*found.get_values_for_type(x509.DNSName), *addresses)
