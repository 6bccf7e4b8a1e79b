"""The web process at its start."""

from __future__ import annotations

import gc
import runpy

import pytest

from portal import starting


def test_what_was_imported_is_never_looked_at_by_the_garbage_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "check_or_exit", lambda who: None)
    young = [[number] for number in range(1000)]
    before = gc.get_freeze_count()
    started = runpy.run_module("portal.wsgi")
    assert callable(started["application"])
    assert gc.get_freeze_count() >= before + len(young)
