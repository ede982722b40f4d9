"""Pictures made here, in the forms that they come in from outside."""

from __future__ import annotations

import base64
import io
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageDraw


@cache
def drawing(width: int, height: int, seed: int = 0) -> Image.Image:
    """A scene with edges, slopes of colour and noise, RGB."""
    random = np.random.default_rng(seed)
    down, along = np.mgrid[0:height, 0:width]
    slopes = np.stack([along * 255 / width, down * 255 / height, (along + down) * 255 / (width + height)], -1)
    image = Image.fromarray((slopes + random.normal(0, 12, slopes.shape)).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y = (int(random.integers(0, side)) for side in (width, height))
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        draw.ellipse([x - width // 8, y - height // 8, x + width // 8, y + height // 8], fill=colour)
    return image


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The picture as a file."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def files() -> dict[str, bytes]:
    """One picture in every form that is read, and some that are odd."""
    image = drawing(150, 100)
    alpha = image.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(image.size))
    turned = Image.Exif()
    turned[0x0112] = 6  # turned by a quarter
    return {
        "png": encoded(image),
        "jpeg": encoded(image, "JPEG", quality=85),
        "progressive": encoded(image, "JPEG", progressive=True),
        "cmyk": encoded(image.convert("CMYK"), "JPEG"),
        "exif": encoded(image, "JPEG", exif=turned),
        "grey": encoded(image.convert("L")),
        "grey-alpha": encoded(alpha.convert("LA")),
        "alpha": encoded(alpha),
        "palette": encoded(image.quantize(31)),
        "palette-alpha": encoded(image.quantize(31), transparency=3),
        "bilevel": encoded(image.convert("1")),
        "sixteen-bits": encoded(Image.fromarray(np.arange(60 * 90, dtype=np.uint16).reshape(60, 90) * 12)),
        "webp": encoded(image, "WEBP"),
        "gif": encoded(image, "GIF"),
        "bmp": encoded(image, "BMP"),
        "small": encoded(drawing(7, 5)),
        "wide": encoded(drawing(600, 9)),
        "tall": encoded(drawing(11, 500)),
    }


def film(frames: int, width: int = 72, height: int = 56) -> list[Image.Image]:
    """A short film."""
    return [drawing(width, height, seed) for seed in range(frames)]
