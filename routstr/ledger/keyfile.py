"""The node's master key in a file of its own, for those who give it none: made once, never lost.

A key that a crash half wrote, or that a power cut took back after the first secret was sealed
under it, would cost everything in the database. So the file appears whole or not at all, and is on
the disk, name and all, before anybody uses it.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from routstr.errors import ConfigError

KEY_BYTES: Final = 32
PRIVATE: Final = 0o600


def key_from_file(path: Path) -> bytes:
    """The key in that file. Raises ConfigError if it is missing, open to others, or no key."""
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"SECRET_KEY: {path} can be read by others; chmod 600 it")
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except OSError as error:
        raise ConfigError(f"SECRET_KEY: {path} cannot be read") from error
    except ValueError as error:
        raise ConfigError(f"SECRET_KEY: {path} holds no key in hex") from error
    if len(key) < KEY_BYTES:
        raise ConfigError(f"SECRET_KEY: {path} holds no key of {KEY_BYTES} bytes")
    return key


def make_key_file(path: Path, *, random_bytes: Callable[[int], bytes]) -> None:
    """Write a new key, durably, unless there is a file already. Raises ConfigError."""
    draft = path.with_suffix(".new")
    try:
        draft.unlink(missing_ok=True)  # what a crash left half written
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
        with os.fdopen(descriptor, "w") as file:
            file.write(random_bytes(KEY_BYTES).hex())
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)  # unlike a rename it never replaces a key that is in use
        draft.unlink()
        sync_directory(path.parent)
    except OSError as error:
        raise ConfigError(f"DATA_DIR: {path.parent} cannot be written to") from error


def sync_directory(directory: Path) -> None:
    """Put the names in a directory on the disk, as far as the system can."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
