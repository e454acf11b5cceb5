"""Forms and sounds as clients send them."""

import io
import wave

BOUNDARY = "----client-boundary"
FORM_TYPE = f'multipart/form-data; boundary="{BOUNDARY}"'


def form(*parts: tuple[str, str | bytes]) -> bytes:
    """Text parts, and files of bytes called `name.bin`."""
    pieces = []
    for name, value in parts:
        head = f'Content-Disposition: form-data; name="{name}"'
        if isinstance(value, bytes):
            head += f'; filename="{name.strip("[]")}.bin"\r\nContent-Type: application/x-any'
        data = value if isinstance(value, bytes) else value.encode()
        pieces.append(f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + data + b"\r\n")
    return b"".join(pieces) + f"--{BOUNDARY}--\r\n".encode()


def wav(milliseconds: int, *, rate: int = 8_000) -> bytes:
    """Silence, 16 bits, mono."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(2 * rate * milliseconds // 1_000))
    return out.getvalue()


def mp3(frames: int) -> bytes:
    """Frames of 128 kbit/s at 44.1 kHz: 1152 samples in 417 bytes each."""
    return (b"\xff\xfb\x90\x00" + bytes(413)) * frames
