"""What the operator can do and see, one flow a file."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from routstr.flows.house import keys, money  # noqa: F401 - until pages show them
