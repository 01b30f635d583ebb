"""The text of an API key, and what is kept of it. Pure, but for the making of a new one.

A key is `sg_<id>_<secret>`: the id finds its record, the secret proves it. Secrets are drawn
here, with 256 bits, so nobody can try them all: a slow hash would protect nothing that a fast
one does not, and cost milliseconds on every call. The salt keeps digests of one store from
saying anything about another.
"""

import hmac
import re
import secrets
import string
from hashlib import blake2b

import msgspec

_ALPHABET = string.ascii_letters + string.digits
_SECRET_LENGTH = 43  # of 62 letters each: 256 bits
_ID_BYTES, _SALT_BYTES, _DIGEST_BYTES = 6, 16, 32
_PERSON = b"sluicegate key"
_KEY = re.compile(r"sg_([0-9a-z]{4,32})_([A-Za-z0-9]{32,128})")


class Credential(msgspec.Struct, frozen=True):
    """What a caller shows."""

    id: str
    secret: str

    def __repr__(self) -> str:
        return f"Credential({self.id!r}, ...)"

    @property
    def text(self) -> str:
        """The key as its owner keeps it."""
        return f"sg_{self.id}_{self.secret}"


class Proof(msgspec.Struct, frozen=True):
    """What tells the right secret from all others, and does not give it away."""

    salt: bytes
    digest: bytes

    def fits(self, secret: str) -> bool:
        """Whether *secret* is the one; takes as long whatever it is."""
        return hmac.compare_digest(_digest(secret, self.salt), self.digest)


def draw() -> Credential:
    """A new key."""
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))
    return Credential(secrets.token_hex(_ID_BYTES), secret)


def read(text: str) -> Credential | None:
    """The key in *text*; None when it is none."""
    found = _KEY.fullmatch(text)
    return Credential(found[1], found[2]) if found else None


def prove(secret: str) -> Proof:
    """What to keep of a secret."""
    salt = secrets.token_bytes(_SALT_BYTES)
    return Proof(salt, _digest(secret, salt))


def _digest(secret: str, salt: bytes) -> bytes:
    return blake2b(secret.encode(), digest_size=_DIGEST_BYTES, salt=salt, person=_PERSON).digest()
