"""Pictures made here, and photographs, in the forms that they come in from outside."""

from __future__ import annotations

import base64
import importlib.util
import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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


def photograph_file(name: str) -> bytes:
    """A photograph of 640 x 427 that comes with scikit-learn (CC BY 2.0): `china.jpg`, `flower.jpg`. Skips without."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        pytest.skip("scikit-learn, whose photographs these are, is not installed")
    return (Path(spec.origin).parent / "datasets/images" / name).read_bytes()


def photograph(name: str) -> Image.Image:
    """Its pixels, RGB."""
    return Image.open(io.BytesIO(photograph_file(name))).convert("RGB")


def photographs() -> dict[str, bytes]:
    """Photographs in several sizes and forms."""
    china, flower = photograph("china.jpg"), photograph("flower.jpg")
    alpha = china.copy()
    alpha.putalpha(flower.convert("L"))
    return {
        "jpeg": photograph_file("china.jpg"),
        "jpeg-flower": photograph_file("flower.jpg"),
        "jpeg-small": encoded(flower.resize((90, 60)), "JPEG", quality=40),
        "jpeg-grey": encoded(flower.convert("L").crop((0, 0, 301, 233)), "JPEG"),
        "png": encoded(china.crop((101, 57, 434, 274))),
        "png-tall": encoded(flower.crop((200, 0, 350, 427))),
        "png-large": encoded(china.resize((1024, 768), Image.Resampling.LANCZOS)),
        "png-grey": encoded(china.convert("L").resize((200, 133))),
        "png-alpha": encoded(alpha),
        "png-grey-alpha": encoded(alpha.convert("LA").resize((320, 213))),
    }


def pan(frames: int, width: int = 240, height: int = 180) -> list[Image.Image]:
    """A short film: the camera moves over a photograph."""
    corners = [(40 * frame, 30 * frame) for frame in range(frames)]
    return [photograph("china.jpg").crop((x, y, x + width, y + height)) for x, y in corners]
