"""Hear everything that any library logs; production caps the talkative ones at WARNING (S-32)."""

from __future__ import annotations

import logging

import pytest

from portal.site.logs import CAPPED_LOGGERS


def log_everything(caplog: pytest.LogCaptureFixture) -> None:
    """Capture at DEBUG, past the caps."""
    caplog.set_level(logging.DEBUG)
    for name in CAPPED_LOGGERS:
        caplog.set_level(logging.DEBUG, logger=name)
