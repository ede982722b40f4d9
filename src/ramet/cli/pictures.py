"""Pictures from files, as parts of a message."""

from __future__ import annotations

import base64
import mimetypes
from pathlib import Path
from typing import Any

from ramet.errors import RametError
from ramet.models.image_files import BYTES, ImageError, read_frames


def picture_part(path: Path) -> dict[str, Any]:
    """The picture in a file as a part of a message in OpenAI's chat form; an animated one is a film.

    Raises RametError, which names the file, if it cannot be read.
    """
    try:
        if path.stat().st_size > BYTES:
            raise RametError(f"{path} is larger than {BYTES >> 20} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise RametError(f"cannot read {path}: {error.strerror}") from None
    try:
        moving = len(read_frames(data)[0]) > 1
    except ImageError as error:
        raise RametError(f"{path}: {error}") from None
    kind = "video_url" if moving else "image_url"
    named = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return {"type": kind, kind: {"url": f"data:{named};base64,{base64.b64encode(data).decode()}"}}
