"""Verifies signatures of minisign (https://jedisct1.github.io/minisign/), offline: Ed25519 over a file or its BLAKE2b.

A key is two lines, of which the second alone will do: base64 of 2 bytes algorithm, 8 of key id, 32 of key. A signature
is four: a comment, base64 of algorithm, key id and 64 bytes, a trusted comment, and base64 of 64 bytes over both.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass

from edge.errors import BadDataError, ConfigError, pip

PLAIN, HASHED = b"Ed", b"ED"
TRUSTED = "trusted comment: "


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Who may sign."""

    id: bytes
    key: bytes

    @staticmethod
    def parse(text: str) -> "PublicKey":
        """Of the text of a key file, or its last line. Raises ConfigError."""
        lines = text.strip().splitlines() or [""]
        raw = _base64(lines[-1])
        if raw is None or len(raw) != 42 or raw[:2] != PLAIN:
            raise ConfigError("model.public_key: not a minisign public key (56 characters that begin with RW)")
        return PublicKey(raw[2:10], raw[10:])

    def verify(self, content: bytes, signature: str, name: str) -> str:
        """The trusted comment of a signature that holds. Raises BadDataError, which names `name`."""
        lines = signature.splitlines()
        signed = _base64(lines[1]) if len(lines) >= 4 else None
        whole = _base64(lines[3]) if len(lines) >= 4 else None
        well_formed = signed and whole and len(signed) == 74 and len(whole) == 64 and lines[2].startswith(TRUSTED)
        if not well_formed or signed is None or whole is None or signed[:2] not in (PLAIN, HASHED):
            raise BadDataError(f"{name}: not a signature of minisign")
        if signed[2:10] != self.id:
            raise BadDataError(
                f"{name}: signed with key {signed[2:10][::-1].hex().upper()}, not with model.public_key"
                f" ({self.id[::-1].hex().upper()})"
            )
        comment = lines[2][len(TRUSTED) :]
        digest = hashlib.blake2b(content).digest() if signed[:2] == HASHED else content
        if not (self._holds(signed[10:], digest) and self._holds(whole, signed[10:] + comment.encode())):
            raise BadDataError(f"{name}: the signature does not hold: the file is not what was signed")
        return comment

    def _holds(self, signature: bytes, content: bytes) -> bool:
        try:
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        except ImportError:
            raise ConfigError(f"signatures need cryptography: {pip('install', 'emotiond[bundle]')}") from None
        try:
            Ed25519PublicKey.from_public_bytes(self.key).verify(signature, content)
        except (InvalidSignature, ValueError):
            return False
        return True


def _base64(line: str) -> bytes | None:
    try:
        return base64.b64decode(line.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
