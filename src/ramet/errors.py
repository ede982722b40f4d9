"""Errors that are the user's to act on: the message says what is wrong, where, and what to do; no traceback is shown."""

from __future__ import annotations


class RametError(Exception):
    """Base of every error whose message is meant for the person who uses Ramet."""
