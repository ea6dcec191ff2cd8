"""Signed bytes, not yet believed, and what gpg says of them.

Facts only: `trust` decides what they are worth.
"""

from msgspec import Struct

MAX_ENVELOPE_BYTES = 16 * 2**20
"""The largest object that is fetched: 50,000 instances take 4 MB."""

MAX_PAYLOAD_BYTES = 64 * 2**20
"""The most that gpg may print of one message: 50,000 instances take 15 MB."""


class Envelope(Struct, frozen=True):
    """One object of the store: an OpenPGP message, and the store's opaque tag of this version."""

    blob: bytes
    etag: str | None = None


class SignatureReport(Struct, frozen=True, kw_only=True):
    """What gpg found in an envelope.

    `payload` holds the only bytes that may ever be parsed. The other fields mirror
    python-gnupg's result: each of them alone has been seen to look good on a message that must
    be refused, so none of them means anything without the rest.
    """

    payload: bytes
    valid: bool
    returncode: int
    status: str
    key_status: str | None
    problems: int
    signatures: int
    primary_fingerprint: str | None
    key_expires_at: int | None = None
