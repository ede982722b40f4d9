"""Picture files from anywhere: read, or refused in words."""

from __future__ import annotations

import base64
import random
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ramet.models import image_files
from ramet.models.image_files import ImageError, from_base64, from_data_url, read_frames, read_image, same_size
from tests.pictures import data_url, drawing, encoded, files, film

FILES = files()


def test_every_form_is_read_as_rgb() -> None:
    shown = np.asarray(drawing(150, 100))
    assert np.array_equal(read_image(FILES["png"]), shown)
    assert np.array_equal(read_image(FILES["bmp"]), shown)
    assert read_image(FILES["exif"]).shape == (150, 100, 3)
    assert np.abs(read_image(FILES["exif"])[:, ::-1].transpose(1, 0, 2).astype(int) - shown).mean() < 14
    faint = read_image(FILES["alpha"])
    assert (faint[0] >= 250).all()  # transparent above, on white
    assert np.abs(faint[-1].astype(int) - shown[-1]).max() <= 4
    for name, data in FILES.items():
        pixels = read_image(data)
        assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3, name


def test_grey_of_sixteen_bits_is_grey() -> None:
    """Pillow's own conversion takes all of it but the darkest 256th for white."""
    wide = np.linspace(0, 65535, 64 * 32).astype(np.uint16).reshape(32, 64)
    data = encoded(Image.fromarray(wide))
    assert np.array_equal(read_image(data), np.repeat((wide >> 8).astype(np.uint8)[..., None], 3, 2))
    assert np.array_equal(read_frames(data)[0][0], read_image(data))
    clear = encoded(Image.fromarray(np.asarray([[30000, 30001]], np.uint16)), transparency=30000)
    assert read_image(clear)[0, :, 0].tolist() == [255, 30001 >> 8]


def _png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is empty"),
        (b"hello", "no picture that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture that can be read"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "no picture that can be read"),
        (FILES["png"][:200], "cannot be read"),
        (FILES["jpeg"][:900], "cut off"),
        (_png(100_000, 100_000, bytes(1000)), "million pixels|million are read"),
        (_png(9_000, 9_000, bytes(30_000_000)), "9000 x 9000 pixels; at most 64 million"),
        (_png(2**31 - 1, 2**31 - 1, b""), "million"),
        (_png(0, 5, b""), "cannot be read|no picture"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        read_image(data)


def test_a_file_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_files, "BYTES", 1 << 20)
    with pytest.raises(ImageError, match="larger than 1 MiB"):
        read_image(bytes(2 << 20))
    with pytest.raises(ImageError, match="larger than 1 MiB"):
        from_base64("A" * (2 << 20))


@given(st.sampled_from(sorted(FILES)), st.integers(0, 2**32), st.integers(0, 3))
@settings(deadline=None, max_examples=400)
def test_a_damaged_file_is_read_or_refused(name: str, seed: int, way: int) -> None:
    """Cut off, bytes changed, zeroed, or with another file's end: never anything but a picture or an ImageError."""
    dice = random.Random(seed)
    data = bytearray(FILES[name])
    if way == 0:
        del data[dice.randrange(len(data)) :]
    elif way == 1:
        for _ in range(dice.randrange(1, 20)):
            data[dice.randrange(min(len(data), dice.choice((64, 10**6))))] = dice.randrange(256)
    elif way == 2:
        start = dice.randrange(len(data))
        data[start : start + 40] = bytes(len(data[start : start + 40]))
    else:
        data[dice.randrange(len(data)) :] = FILES[dice.choice(sorted(FILES))][dice.randrange(100) :]
    for read in (read_image, lambda data: read_frames(data)[0]):
        try:
            read(bytes(data))
        except ImageError as error:
            assert 10 < len(str(error)) < 400 and "\n" not in str(error)


@given(st.binary(max_size=300) | st.builds(lambda tail: b"GIF89a" + tail, st.binary(max_size=200)))
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        read_image(data)
    except ImageError as error:
        assert str(error)


def test_data_urls() -> None:
    assert from_data_url(data_url(b"abc")) == b"abc"
    assert from_data_url("data:;base64," + base64.b64encode(b"abc").decode()) == b"abc"
    assert from_data_url("data:image/png;charset=x;base64, YW\nJj ") == b"abc"
    assert from_data_url("data:image/bmp,a%62c") == b"abc"
    for url, message in (
        ("http://example.org/a.png", "not fetched from the network"),
        ("HTTPS://example.org/a.png", "not fetched from the network"),
        ("file:///etc/passwd", "must begin with data:"),
        ("/etc/passwd", "must begin with data:"),
        ("", "must begin with data:"),
        ("data:image/png;base64", "no comma"),
        ("data:image/png;base64,a", "not valid base64"),
        ("data:image/png;base64,ä", "not valid base64"),
    ):
        with pytest.raises(ImageError, match=message):
            from_data_url(url)


@given(st.text(max_size=80) | st.builds(lambda tail: f"data:{tail}", st.text(max_size=60)))
def test_any_url_is_read_or_refused(url: str) -> None:
    try:
        from_data_url(url)
    except ImageError as error:
        assert str(error)


def test_films() -> None:
    shots = film(5)
    loss_free = {"save_all": True, "append_images": shots[1:], "duration": 250}
    frames, fps = read_frames(encoded(shots[0], "WEBP", lossless=True, **loss_free))
    assert len(frames) == 5 and fps == 4.0
    assert all(np.array_equal(frame, np.asarray(shot)) for frame, shot in zip(frames, shots, strict=True))
    frames, fps = read_frames(encoded(shots[0], "PNG", **loss_free))
    assert len(frames) == 5 and np.array_equal(frames[3], np.asarray(shots[3]))
    frames, fps = read_frames(FILES["jpeg"])
    assert len(frames) == 1 and fps is None
    same_size(frames)
    with pytest.raises(ImageError, match="of one size"):
        same_size([np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)])
    with pytest.raises(ImageError, match="at least one frame"):
        same_size([])
    many = [Image.new("RGB", (1, 1), (index % 256, index // 256, 0)) for index in range(900)]
    with pytest.raises(ImageError, match="900 frames"):
        read_frames(encoded(many[0], "GIF", save_all=True, append_images=many[1:]))
