"""How much prompt a part of a body is."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """How much prompt something is: whether the body's bytes bound it, and its UTF-8 text.

    It `has_files` if an upstream may have them read for it before it reads them itself.
    """

    is_bounded: bool = True
    text_bytes: int = 0
    has_files: bool = False

    def __add__(self, other: "Prompt") -> "Prompt":
        """Both together."""
        return Prompt(
            is_bounded=self.is_bounded and other.is_bounded,
            text_bytes=self.text_bytes + other.text_bytes,
            has_files=self.has_files or other.has_files,
        )


def names_no_image(part: Mapping[str, object]) -> bool:
    """Whether a picture's own words say that it is none: its type, or that of its data."""
    kind, url = part.get("media_type"), part.get("image_url", part.get("url"))
    if isinstance(url, dict):
        url = url.get("url")
    is_other = isinstance(kind, str) and not kind.lower().startswith("image/")
    is_data = isinstance(url, str) and url[:5].lower() == "data:"
    return is_other or (is_data and isinstance(url, str) and url[5:11].lower() != "image/")
