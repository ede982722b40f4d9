"""Pictures in messages: read, resized, and put in their places among a prompt's tokens."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ramet.chat.messages import MessageError, each_part, is_picture, is_video
from ramet.chat.tokenizer import Tokenizer
from ramet.models.image_files import (
    FILM_PIXELS,
    FRAMES,
    NAMED,
    ImageError,
    from_base64,
    from_data_url,
    read_frames,
    read_image,
    same_size,
)
from ramet.models.images import Images, Pixels, Shown
from ramet.models.pictures import Placed

_KEPT = 256 << 20
"""Bytes of pixels that are kept, for a client sends all pictures of a conversation anew with every turn."""
_SHOWN = 1 << 30
"""Bytes of pixels that one request may show: small files can unfold to any size."""
_FPS = 2.0
"""Frames a second in a film that does not say, as published processors sample."""


@dataclass(frozen=True)
class Look:
    """A picture, or a film, that a message shows."""

    video: bool
    shown: tuple[Shown, ...]


class Sight:
    """What a checkpoint with a vision tower makes of pictures in messages. Safe to use from several threads."""

    def __init__(self, images: Images, tokenizer: Tokenizer) -> None:
        self._images = images
        self._tokenizer = tokenizer
        self._image_mark = tokenizer.token_id(images.image_mark)
        self._whole = [tokenizer.token_id(mark) for mark in images.video_whole]
        self._known: OrderedDict[bytes, Look] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def looks(self, messages: Sequence[Mapping[str, Any]]) -> list[Look]:
        """What `messages` show, in order. Raises MessageError, which names the place of a picture that cannot be."""
        found, size = [], 0
        for place, part in each_part(messages):
            if is_picture(part):
                try:
                    found.append(self._look(part))
                    size += _size(found[-1])
                    if size > _SHOWN:
                        raise ImageError(f"with those before it, it has more than {_SHOWN >> 20} MiB of pixels")
                except ImageError as error:
                    what = "film" if is_video(part) else "picture"
                    raise MessageError(f"{place}: this {what} cannot be used: {error}") from None
        return found

    def expand(self, tokens: Sequence[int], looks: list[Look], position: int) -> tuple[list[int], list[Placed]]:
        """`tokens`, which begin at `position` in the prompt, with as many marks as each picture has rows.

        Takes from `looks` those that are shown, and gives their places.
        """
        out: list[int] = []
        placed: list[Placed] = []
        opening, film, closing = self._whole
        skip = None
        for token in tokens:
            if token == skip:
                skip = None
                continue
            skip = None
            if not looks or token != (film if looks[0].video else self._image_mark):
                out.append(token)
                continue
            look = looks.pop(0)
            if look.video:
                if opening is not None and out and out[-1] == opening:
                    out.pop()
                skip = closing
            for each in look.shown:
                before, behind = (
                    (each.text + self._images.film_part[0], self._images.film_part[1]) if look.video else ("", "")
                )
                out += self._tokenizer.encode(before)
                placed.append(Placed(position + len(out), each.picture))
                out += [token] * each.picture.tokens
                out += self._tokenizer.encode(behind)
        return out, placed

    def _look(self, part: Mapping[str, Any]) -> Look:
        video, sources, fps = _sources(part)
        name = hashlib.sha256(f"{video} {fps}".encode())
        for source in sources:
            name.update(b"\0" + source.encode("utf-8", "replace"))
        key = name.digest()
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known
        look = Look(video, tuple(self._film(sources, fps)) if video else (self._picture(sources[0]),))
        with self._lock:
            if key not in self._known:
                self._known[key] = look
                self._bytes += _size(look)
            while self._bytes > _KEPT and len(self._known) > 1:
                self._bytes -= _size(self._known.popitem(last=False)[1])
        return look

    def _picture(self, source: str) -> Shown:
        return Shown("", self._images.image(read_image(from_data_url(source))))

    def _film(self, sources: Sequence[str], fps: float | None) -> list[Shown]:
        frames: list[Pixels] = []
        said: float | None = None
        if len(sources) == 1:
            head, _, body = sources[0].partition(",")
            if head.startswith("data:video/jpeg") and "," in body:  # frames, one after the other
                frames = _all(from_base64(each) for each in body.split(","))
            else:
                frames, said = read_frames(from_data_url(sources[0]))
        else:
            frames = _all(from_data_url(source) for source in sources)
        same_size(frames)
        return self._images.video(frames, fps or said or _FPS)


def _all(files: Iterable[bytes]) -> list[Pixels]:
    """A film's frames. Raises ImageError, as soon as they are too much."""
    frames: list[Pixels] = []
    for data in files:
        frames.append(read_image(data))
        if sum(frame.size for frame in frames) > 3 * FILM_PIXELS or len(frames) > FRAMES:
            raise ImageError(f"it has more than {FRAMES} frames, or {FILM_PIXELS // 1_000_000} million pixels in all")
    return frames


def _sources(part: Mapping[str, Any]) -> tuple[bool, list[str], float | None]:
    """Whether a part is a film, its URLs, and the frames a second that it says. Raises ImageError."""
    video = is_video(part)
    kind = "video" if video else "image"
    value = part.get(f"{kind}_url", part.get(kind))
    if isinstance(value, Mapping):
        value = value.get("url")
    sources = list(value) if video and isinstance(value, list | tuple) else [value]
    if not sources or not all(isinstance(source, str) for source in sources):
        raise ImageError(f"{kind}_url.url must be a data: URL")
    fps = part.get("fps")
    if fps is not None and (isinstance(fps, bool) or not isinstance(fps, int | float) or not 0 < fps <= 1000):
        raise ImageError("fps must be a number of frames a second, at most 1000")
    return video, sources, fps


def without_pixels(messages: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """`messages` as the template needs them: their pictures are there, but empty."""
    return [_with_parts(message, _empty) for message in messages]


def by_name(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message with the names of its pictures, which are hashes, in place of their content."""
    return _with_parts(message, _named)


def _with_parts(message: Mapping[str, Any], change: Callable[[Mapping[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    copy = dict(message)
    if isinstance(copy.get("messages"), list):
        copy["messages"] = [_with_parts(inner, change) for inner in copy["messages"]]
    if isinstance(copy.get("content"), list | tuple):
        copy["content"] = [change(part) if is_picture(part) else part for part in copy["content"]]
    return copy


def _empty(part: Mapping[str, Any]) -> dict[str, Any]:
    kind = "video" if is_video(part) else "image"
    return {"type": kind, kind: ""}


def _named(part: Mapping[str, Any]) -> dict[str, Any]:
    video, sources, fps = _sources(part)
    kind = "video" if video else "image"
    names = [NAMED + hashlib.sha256(source.encode("utf-8", "replace")).hexdigest() for source in sources]
    return {"type": kind, kind: names if video else names[0], **({} if fps is None else {"fps": fps})}


def _size(look: Look) -> int:
    distinct = {id(shown.picture): np.asarray(shown.picture.frames).nbytes for shown in look.shown}
    return sum(distinct.values())
