"""How much prompt a part of a body is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """How much prompt something is: whether the body's bytes bound it, and its UTF-8 text."""

    is_bounded: bool = True
    text_bytes: int = 0

    def __add__(self, other: "Prompt") -> "Prompt":
        """Both together."""
        return Prompt(
            is_bounded=self.is_bounded and other.is_bounded,
            text_bytes=self.text_bytes + other.text_bytes,
        )
