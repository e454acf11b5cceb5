import pytest
from hypothesis import given
from hypothesis import strategies as st

from routstr.core.duration import Length, _crc8, length_of
from tests.core.forms import mp3, wav


def flac(samples: int, rate: int, frames: bytes = b"") -> bytes:
    facts = (rate << 44 | 15 << 36 | samples).to_bytes(8, "big")
    return b"fLaC\x80\0\0\x22" + bytes(10) + facts + bytes(16) + frames


def page(position: int, data: bytes) -> bytes:
    return b"OggS\0\0" + position.to_bytes(8, "little") + bytes(13) + data


def mp4(duration: int, scale: int, *, wide: bool = False) -> bytes:
    times = bytes(16 if wide else 8)
    movie = bytes([wide, 0, 0, 0]) + times + scale.to_bytes(4, "big")
    movie += duration.to_bytes(8 if wide else 4, "big") + bytes(80)
    header = (len(movie) + 8).to_bytes(4, "big") + b"mvhd" + movie
    return b"\0\0\0\x0cftypM4A " + (len(header) + 8).to_bytes(4, "big") + b"moov" + header


OPUS = page(0, b"OpusHead\1\1" + (312).to_bytes(2, "little"))
VORBIS = page(0, b"\x01vorbis\0\0\0\0\1" + (16_000).to_bytes(4, "little"))
NO_END = (1 << 64) - 1


@pytest.mark.parametrize(
    ("audio", "seconds", "seconds_max"),
    [
        (wav(3_000), 3, 3),
        (wav(3_001), 4, 4),
        (wav(3_000).replace(b"data\x80\xbb\0\0", b"data\xff\xff\xff\xff"), 3, 3),
        (wav(3_000) + wav(2_000)[36:], 5, 5),  # a second piece of sound is heard too
        (wav(3_000) + b"LIST" + (4_000).to_bytes(4, "little") + bytes(4_000), 3, 7),
        (mp3(100), 3, 3),  # 2.612 s
        (b"ID3\x04\0\0\0\0\x0a\0" + bytes(1_280) + mp3(100), 3, 3),
        (mp3(100) + bytes(2_000), 3, 5),
        (flac(16_000 * 3 + 1, 16_000), 4, 4),
        (OPUS + page(48_000 * 2 + 312, b"x" * 40), 2, 2),
        (OPUS + page(48_000 * 2 + 313, b"x") + page(NO_END, b"y" * 9_900), 3, 10),
        (VORBIS + page(16_000 * 7, b"x"), 7, 7),
        (mp4(2_500, 1_000), 3, 3),
        (mp4(90_000 * 60, 90_000, wide=True), 60, 60),
        (mp4(0xFFFFFFFF, 1_000), None, 1),
        (flac(0, 16_000), None, 1),
        (b"\x1aE\xdf\xa3" + bytes(9_997), None, 11),
        (b"", None, 1),
    ],
)
def test_lengths(audio: bytes, seconds: int | None, seconds_max: int) -> None:
    assert length_of(audio) == Length(seconds=seconds, seconds_max=seconds_max)


def opus(packets: list[bytes]) -> bytes:
    """Pages of up to 255 short packets, whose positions all say 1 s."""
    pages = []
    for start in range(0, len(packets), 255):
        some = packets[start : start + 255]
        head = b"OggS\0\0" + (48_000).to_bytes(8, "little") + bytes(12) + bytes([len(some)])
        pages.append(head + bytes(len(each) for each in some) + b"".join(some))
    return b"".join(pages)


FLAC_FRAME = bytes.fromhex("fff8740800ffff")  # 65,536 samples at 8 kHz


def test_silence_without_bytes_is_as_long_as_its_frames() -> None:
    heads = opus([b"OpusHead\1\1\0\0"]) + opus([b"OpusTags"])
    silence = opus([b"\x1b\x02"] * 1_000)  # two frames of 60 ms in two bytes
    assert length_of(heads + silence).seconds == 120
    assert length_of(heads + opus([b"\xfc"] * 1_000)).seconds == 20  # one of 20 ms each
    frame = FLAC_FRAME + bytes([_crc8(FLAC_FRAME)]) + bytes(8)
    assert length_of(flac(8_000, 8_000, frame * 100)).seconds == 820  # 819.2 s in 1.6 kB
    hidden = b"\xff\xf8\x74\x08" * 50_001
    assert length_of(flac(8_000, 8_000, hidden)).seconds == 10**6
    assert length_of(flac(8_000, 8_000, (FLAC_FRAME + b"\0" * 9) * 100)).seconds == 1


def test_a_header_cannot_shorten_what_is_measured() -> None:
    long = wav(10_000)
    assert length_of(long[:40] + b"\x10\0\0\0" + long[44:]) == length_of(long)
    xing = b"\xff\xfb\x90\x00" + b"Xing\0\0\0\x01\0\0\0\x01".ljust(413, b"\0")
    assert length_of(xing + mp3(400)).seconds == 11


@given(
    st.sampled_from([b"", wav(50), mp3(3), flac(9, 9), OPUS, VORBIS, mp4(9, 9)]),
    st.binary(max_size=200),
    st.integers(0, 300),
)
def test_nothing_raises_and_the_bound_holds(start: bytes, noise: bytes, at: int) -> None:
    for audio in (start[:at] + noise, start[:at] + noise + start[at:]):
        length = length_of(audio)
        assert 1 <= (length.seconds or 1) <= length.seconds_max <= 10**6
