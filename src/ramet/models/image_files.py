"""Picture files to pixels. They come from anywhere: what is broken, huge or something else is refused by name."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ramet.errors import RametError

BYTES = 64 << 20
"""The largest file that is read."""
PIXELS = 64_000_000
"""The most pixels that a picture may have: a small file can unfold to any size."""
FRAMES = 768
"""The most frames that a film may have."""
FILM_PIXELS = 4 * PIXELS
"""The most pixels that its frames may have together."""

NAMED = "sha256:"
"""How the name of a picture begins that stands in place of its content."""

_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


class ImageError(RametError):
    """A picture cannot be shown to the model; the message says why."""


def read_image(data: bytes) -> NDArray[np.uint8]:
    """The picture in a file (of several, the first), upright as its EXIF says, RGB `[height, width, 3]`.

    What is transparent is seen on white. Raises ImageError.
    """
    with _open(data) as image:
        return _pixels(image)


def read_frames(data: bytes) -> tuple[list[NDArray[np.uint8]], float | None]:
    """All pictures in an animated GIF, WebP or PNG, and how many come a second, if it says. Raises ImageError."""
    with _open(data) as image:
        count = getattr(image, "n_frames", 1)
        if count > FRAMES or count * image.width * image.height > FILM_PIXELS:
            raise ImageError(f"it has {count} frames of {image.width} x {image.height} pixels, which is too much")
        frames, milliseconds = [], 0.0
        for index in range(count):
            try:
                image.seek(index)
            except Exception as error:  # decoders raise what they like
                raise ImageError(f"frame {index} cannot be read ({_said(error)}): is it cut off?") from None
            frames.append(_pixels(image))
            milliseconds += float(image.info.get("duration") or 0)
    return frames, 1000 * count / milliseconds if milliseconds > 0 else None


def same_size(frames: Sequence[NDArray[np.uint8]]) -> None:
    """Raise ImageError unless all frames of a film are of one size."""
    if not frames:
        raise ImageError("a film needs at least one frame")
    if len(frames) > FRAMES:
        raise ImageError(f"it has {len(frames)} frames; at most {FRAMES} are read")
    sizes = {frame.shape for frame in frames}
    if len(sizes) > 1:
        raise ImageError("the frames of a film must be of one size")


def from_data_url(url: str) -> bytes:
    """The bytes in a `data:` URL. Raises ImageError; nothing is fetched from elsewhere."""
    scheme = url.partition(":")[0].strip().lower() if ":" in url[:32] else ""
    if scheme in ("http", "https"):
        raise ImageError(
            "pictures are not fetched from the network: send the picture itself as data:image/png;base64,..."
        )
    if url.startswith(NAMED):
        raise ImageError(
            "a client showed it to the server, which does not keep pictures: of this one it knows the name"
        )
    if scheme != "data":
        raise ImageError("the URL of a picture must begin with data:, as in data:image/png;base64,...")
    head, comma, body = url.partition(",")
    if not comma:
        raise ImageError("this data: URL has no comma, and so no content")
    if not head.lower().replace(" ", "").endswith(";base64"):
        return unquote_to_bytes(body)
    return from_base64(body)


def from_base64(text: str) -> bytes:
    """The bytes that are written in base 64. Raises ImageError."""
    if len(text) > BYTES // 3 * 4 + 4:
        raise ImageError(f"it is larger than {BYTES >> 20} MiB")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"it is not valid base64 ({error})") from None


def _open(data: bytes) -> Image.Image:
    if not data:
        raise ImageError("it is empty")
    if len(data) > BYTES:
        raise ImageError(f"it is larger than {BYTES >> 20} MiB")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except Image.DecompressionBombError:
        raise ImageError(f"it would have more than {PIXELS // 1_000_000} million pixels") from None
    except UnidentifiedImageError:
        known = ", ".join(_FORMATS[:-1])
        raise ImageError(f"it is no picture that can be read: {known} and {_FORMATS[-1]} can be") from None
    except Exception as error:  # decoders raise what they like
        raise ImageError(f"it cannot be read ({_said(error)})") from None
    if image.width * image.height > PIXELS:
        image.close()
        raise ImageError(
            f"it has {image.width} x {image.height} pixels; at most {PIXELS // 1_000_000} million are read"
        )
    return image


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    try:
        upright = _eight_bits(ImageOps.exif_transpose(image))
        if "A" in upright.getbands() or upright.info.get("transparency") is not None:
            clear = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
        return np.array(upright.convert("RGB"), np.uint8)
    except MemoryError:
        raise ImageError("there is not enough memory to read it") from None
    except Exception as error:  # decoders raise what they like
        raise ImageError(f"it cannot be read ({_said(error)}): is it cut off?") from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits a pixel by its upper ones, as colour is read: Pillow would cut nearly all of it to white."""
    if not image.mode.startswith("I"):
        return image
    wide = np.asarray(image)
    grey = Image.fromarray((wide >> 8).astype(np.uint8))
    clear = image.info.get("transparency")
    if clear is None:
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(wide == clear, 0, 255).astype(np.uint8))))


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
