"""How long a piece of audio is, read from its bytes: what `/audio/transcriptions` is sold by.

Laws: nothing here raises, whatever a client sends, and everything ends within one pass. WAV and
MP3 are measured by the samples and frames that are there, so their headers cannot lie; FLAC and
Opus are as long as they say or as their frames are, whichever is more, because silence takes next
to no bytes there; Vorbis and MP4 are believed. What is not understood counts at the lowest bitrate
that speech has.

Sources: RFC 9639 (FLAC), RFC 3533, RFC 6716, RFC 7845 (Ogg, Opus), ISO 14496-12 (MP4), ISO 11172-3
(MP3).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from routstr.core.money import ceil_div
from routstr.core.pricing import UNITS_MAX

LOWEST_BYTES_PER_SECOND: Final = 1_000  # 8 kbit/s
_BOXES_MAX: Final = 1_000
FLAC_FRAMES_MAX: Final = 50_000  # over an hour; more is silence, or there to hide some
SLACK_MS: Final = 10_000
_STEPS_MAX: Final = 200_000  # an hour of frames; more would hold up everybody else


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """Seconds, begun ones whole: as they are read, None if they cannot be, and their bound."""

    seconds: int | None
    seconds_max: int


def length_of(audio: bytes) -> Length:
    """The length of a file of WAV, MP3, FLAC, Ogg or MP4; of any other, only its bound."""
    measured = _wav(audio) or _mp3(audio)
    if measured is not None:
        milliseconds, unread_bytes = measured
        seconds = _bounded(ceil_div(milliseconds, 1_000))
        loose = ceil_div(unread_bytes, LOWEST_BYTES_PER_SECOND)
        return Length(seconds=seconds, seconds_max=_bounded(seconds + loose))
    said = _flac(audio) or _ogg(audio) or _mp4(audio)
    bound = ceil_div(len(audio), LOWEST_BYTES_PER_SECOND)
    if said is None:
        return Length(seconds=None, seconds_max=_bounded(bound))
    seconds = _bounded(ceil_div(said, 1_000))
    return Length(seconds=seconds, seconds_max=_bounded(max(seconds, bound)))


def _bounded(seconds: int) -> int:
    return min(max(seconds, 1), UNITS_MAX)


def _ms(samples: int, rate: int) -> int | None:
    """Milliseconds of so many samples; None if there is nothing to divide."""
    return ceil_div(samples * 1_000, rate) if rate > 0 and samples > 0 else None


def _big(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


# ── measured: (milliseconds, bytes that are no audio we understand) ───────────────────────────

_KIND: Final = re.compile(rb"[A-Za-z0-9_ ]{4}")
_PLAIN_FORMATS: Final = frozenset({1, 3, 6, 7, 0xFFFE})  # PCM, float, A-law, mu-law, extensible


def _wav(audio: bytes) -> tuple[int, int] | None:
    """Samples that are there, at the rate that the header says: players play it at that rate."""
    if audio[:4] != b"RIFF" or audio[8:12] != b"WAVE":
        return None
    at, rate, frame_bytes, sound_bytes, other_bytes = 12, 0, 0, 0, 0
    for _ in range(_BOXES_MAX):
        kind, size = audio[at : at + 4], _little(audio[at + 4 : at + 8])
        body = audio[at + 8 : at + 24]
        there = max(len(audio) - at - 8, 0)
        if kind == b"fmt " and _little(body[:2]) in _PLAIN_FORMATS:
            rate = _little(body[4:8])
            frame_bytes = _little(body[2:4]) * ceil_div(_little(body[14:16]), 8)
        if kind == b"data" or not _KIND.fullmatch(kind):
            # Whoever streams does not know the size: 0, or all ones. What stands behind a size
            # that is too small is sound to those who do not look at it.
            size = size if kind == b"data" and 0 < size <= there else there
            sound_bytes += size
        elif kind != b"fmt ":
            other_bytes += min(size, there)
        at += 8 + size + size % 2
        if at >= len(audio):
            break
    ms = _ms(ceil_div(sound_bytes, frame_bytes), rate) if frame_bytes else None
    return None if ms is None else (ms, other_bytes + max(len(audio) - at, 0))


_MPEG1_KBITS: Final = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2_KBITS: Final = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG_RATES: Final = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000)}
_MPEG25_RATES: Final = (11_025, 12_000, 8_000)


def _mp3(audio: bytes) -> tuple[int, int] | None:
    """Frame by frame, as a decoder walks; what is between frames is skipped, and told.

    What lies behind the last step that may be taken is taken to be like what was walked.
    """
    start = at = _after_id3(audio)
    if not at and _frame(audio, at) is None:
        return None
    samples_by_rate: dict[int, int] = {}
    unread = 0
    for _ in range(_STEPS_MAX):
        if at >= len(audio):
            break
        frame = _frame(audio, at)
        if frame is None:
            following = audio.find(b"\xff", at + 1)
            following = len(audio) if following < 0 else following
            unread, at = unread + following - at, following
            continue
        frame_bytes, samples, rate = frame
        samples_by_rate[rate] = samples_by_rate.get(rate, 0) + samples
        at += frame_bytes
    ms = sum(ceil_div(samples * 1_000, rate) for rate, samples in samples_by_rate.items())
    if not ms:
        return None
    rest = max(len(audio) - at, 0)
    return ms + ceil_div(ms * rest, at - start), unread + rest


def _after_id3(audio: bytes) -> int:
    """Where the frames begin: behind a tag at the front, whose size has 7 bits a byte."""
    size = audio[6:10]
    if audio[:3] != b"ID3" or len(size) < 4 or max(size) > 0x7F:
        return 0
    return 10 + (size[0] << 21 | size[1] << 14 | size[2] << 7 | size[3])


def _frame(audio: bytes, at: int) -> tuple[int, int, int] | None:
    """Bytes, samples and rate of the layer III frame whose header stands there."""
    head = audio[at : at + 4]
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    version, kbits_at, rate_at = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or kbits_at in (0, 15) or rate_at == 3:
        return None
    rate = _MPEG_RATES.get(version, _MPEG25_RATES)[rate_at]
    kbits = (_MPEG1_KBITS if version == 3 else _MPEG2_KBITS)[kbits_at]
    samples = 1_152 if version == 3 else 576
    return samples * 125 * kbits // rate + (head[2] >> 1 & 1), samples, rate


# ── believed, unless the frames are more: milliseconds ────────────────────────────────────────


def _believed(said: int | None, found: int) -> int | None:
    """What is said, if the frames come to about that: one may be there by chance, or be cut."""
    if said is None:
        return found or None
    return found if found > said + SLACK_MS else said


def _flac(audio: bytes) -> int | None:
    """STREAMINFO's sample rate (20 bits) and number of samples (36 bits), or its frames."""
    if audio[:4] != b"fLaC" or audio[4:5] not in (b"\x00", b"\x80"):
        return None
    facts = _big(audio[18:26])
    rate = facts >> 44
    said, found = _ms(facts & (1 << 36) - 1, rate), _flac_frames_ms(audio, rate)
    return _believed(said, found)


_FLAC_FRAME: Final = re.compile(rb"\xff[\xf8\xf9][^\x00-\x0f][\x00-\xaf]", re.DOTALL)
_FLAC_RATES: Final = (
    *(0, 88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000),
)


def _flac_frames_ms(audio: bytes, usual_rate: int) -> int:
    """The frames that are there, each known by the checksum of its header (RFC 9639 §9.1)."""
    microseconds = 0
    for step, found in enumerate(_FLAC_FRAME.finditer(audio, 42)):
        if step == FLAC_FRAMES_MAX:
            return UNITS_MAX * 1_000
        head = audio[found.start() : found.start() + 16]
        size_code, rate_code = head[2] >> 4, head[2] & 15
        size_at = 4 + max(1, 8 - (head[4] ^ 0xFF).bit_length()) if len(head) == 16 else 16
        rate_at = size_at + {6: 1, 7: 2}.get(size_code, 0)
        end = rate_at + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
        if rate_code == 15 or end >= len(head) or _crc8(head[:end]) != head[end]:
            continue
        own = _big(head[rate_at:end]) * {12: 1_000, 14: 10}.get(rate_code, 1)
        rate = (_FLAC_RATES[rate_code] if rate_code < 12 else own) or usual_rate
        samples = _FLAC_SIZES.get(size_code) or _big(head[size_at:rate_at]) + 1
        microseconds += samples * 1_000_000 // rate if rate else 0
    return ceil_div(microseconds, 1_000)


_FLAC_SIZES: Final = {
    1: 192,
    **{code: 576 << (code - 2) for code in range(2, 6)},
    **{code: 256 << (code - 8) for code in range(8, 16)},
}


def _crc8(data: bytes) -> int:
    """The checksum of a FLAC header: x^8 + x^2 + x + 1."""
    crc = 0
    for byte in data:
        crc = _CRC8[crc ^ byte]
    return crc


def _crc8_of(byte: int) -> int:
    for _ in range(8):
        byte = byte << 1 ^ (0x107 if byte & 0x80 else 0)
    return byte


_CRC8: Final = bytes(_crc8_of(byte) for byte in range(256))


def _ogg(audio: bytes) -> int | None:
    """The last page's position, at Opus' fixed rate or at the one that Vorbis says."""
    if audio[:4] != b"OggS":
        return None
    head = audio[:512]
    opus, vorbis = head.find(b"OpusHead"), head.find(b"\x01vorbis")
    rate, skipped = 0, 0
    if opus >= 0:
        rate, skipped = 48_000, _little(head[opus + 10 : opus + 12])
    elif vorbis >= 0:
        rate = _little(head[vorbis + 12 : vorbis + 16])
    said = _last_position(audio)
    found = _opus_packets_ms(audio) if opus >= 0 else 0
    return _believed(None if said is None else _ms(said - skipped, rate), found)


def _last_position(audio: bytes) -> int | None:
    at = len(audio)
    for _ in range(_BOXES_MAX):
        at = audio.rfind(b"OggS", 0, at)
        if at <= 0:
            return None
        position = _little(audio[at + 6 : at + 14])
        if position < 1 << 63:  # all ones: no packet ends on that page
            return position
    return None


_OPUS_HEADS: Final = (b"OpusHead", b"OpusTags")


def _opus_packets_ms(audio: bytes) -> int:
    """The packets that are there, each as long as its first two bytes say (RFC 6716 §3.1)."""
    quarters, steps, at, is_new = 0, 0, 0, True
    while at < len(audio) and audio[at : at + 4] == b"OggS" and steps < _STEPS_MAX:
        lacing = audio[at + 27 : at + 27 + (audio[at + 26] if at + 26 < len(audio) else 0)]
        at += 27 + len(lacing)
        for size in lacing:
            if is_new and size and audio[at : at + 8] not in _OPUS_HEADS:
                quarters += _opus_quarters(audio[at : at + 2])
            is_new = size < 255  # a packet goes on behind a full segment
            at += size
        steps += max(1, len(lacing))
    missed = max(len(audio) - at, 0) if steps >= _STEPS_MAX else 0
    return ceil_div(quarters * (at + missed), 4 * max(at, 1))


def _opus_quarters(head: bytes) -> int:
    """Quarters of a millisecond in a packet: its frames, at most 120 ms of them."""
    if not head:
        return 0
    config = head[0] >> 3
    if config < 12:
        frame = (40, 80, 160, 240)[config & 3]
    elif config < 16:
        frame = (40, 80)[config & 1]
    else:
        frame = (10, 20, 40, 80)[config & 3]
    frames = (1, 2, 2, head[1] & 63 if len(head) > 1 else 0)[head[0] & 3]
    return min(frame * frames, 480)


def _mp4(audio: bytes) -> int | None:
    """The movie header's duration; in fragments the sum is elsewhere, so it is not understood."""
    if audio[4:8] != b"ftyp":
        return None
    movies = (box for box in _boxes(audio, 0, len(audio)) if box[0] == b"moov")
    _, start, end = next(movies, (b"", 0, 0))
    for kind, at, _ in _boxes(audio, start, end):
        if kind == b"mvhd":
            wide = audio[at : at + 1] == b"\x01"
            scale_at = at + (20 if wide else 12)
            scale = _big(audio[scale_at : scale_at + 4])
            said = audio[scale_at + 4 : scale_at + (12 if wide else 8)]
            is_known = said != b"\xff" * len(said)
            return _ms(_big(said), scale) if is_known else None
    return None


def _boxes(audio: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, and where its content begins and ends, of each box."""
    at = start
    for _ in range(_BOXES_MAX):
        size, kind, head = _big(audio[at : at + 4]), audio[at + 4 : at + 8], 8
        if size == 1:
            size, head = _big(audio[at + 8 : at + 16]), 16
        box_end = end if size == 0 else at + size
        if len(kind) < 4 or box_end < at + head:
            return
        yield kind, at + head, min(box_end, end)
        at = box_end
        if at >= end:
            return
