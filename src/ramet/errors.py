"""Errors that are the user's to act on. Each message says what is wrong, where, and what to do."""

from __future__ import annotations


class RametError(Exception):
    """Base of every error whose message is meant for the person who uses Ramet."""
