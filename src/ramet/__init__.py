"""Ramet: open-weight agent models on your own hardware, served from one tree of sessions."""

__version__ = "0.1.0"
