"""Routstr: sell an HTTP API per request, for ecash, without accounts."""

__version__ = "0.1.0"
