"""Passwords as they are stored: argon2id (RFC 9106), slow on purpose and never on the event loop.

Laws: at most two are worked out at a time, 64 MiB each; for nobody's password the same work is
done, so that time does not tell whether there is somebody.
"""

import asyncio
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, TypeVar

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from routstr.errors import InvalidParameter

CHARS_MIN: Final = 12
CHARS_MAX: Final = 1024
SALT_BYTES: Final = 16
HASH_BYTES: Final = 32
AT_ONCE: Final = 2

ResultT = TypeVar("ResultT")


def check_password(password: str) -> None:
    """Raises InvalidParameter for one that is too short to be any good, or absurdly long."""
    if not CHARS_MIN <= len(password) <= CHARS_MAX:
        raise InvalidParameter(
            f"A password has {CHARS_MIN} to {CHARS_MAX} characters.", param="password"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Passwords:
    """Hashes and checks; the cost is that of SR-3 unless a test says otherwise."""

    memory_kib: int = 64 * 1024
    rounds: int = 3
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(AT_ONCE, thread_name_prefix="argon2"), repr=False
    )

    async def hashed(self, password: str, *, salt: bytes) -> str:
        """The PHC string of a password."""
        return await self._work(lambda: self._hash(password, salt))

    async def is_right(self, password: str, stored: str | None) -> bool:
        """Whether `stored` is of that password; None is nobody's, and takes as long."""
        return await self._work(lambda: self._verify(password, stored))

    async def _work(self, work: Callable[[], ResultT]) -> ResultT:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _hash(self, password: str, salt: bytes) -> str:
        argon = Argon2id(
            salt=salt,
            length=HASH_BYTES,
            iterations=self.rounds,
            lanes=1,
            memory_cost=self.memory_kib,
        )
        return argon.derive_phc_encoded(_bytes_of(password))

    def _verify(self, password: str, stored: str | None) -> bool:
        if stored is None or len(password) > CHARS_MAX:
            self._hash(password[:CHARS_MAX], bytes(SALT_BYTES))
            return False
        try:
            Argon2id.verify_phc_encoded(_bytes_of(password), stored)
        except InvalidKey:
            return False
        return True


def _bytes_of(password: str) -> bytes:
    """The same password however a keyboard composes it (NIST SP 800-63B, 5.1.1.2)."""
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
