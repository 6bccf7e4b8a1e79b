"""A bulk check of all tokens."""

from __future__ import annotations

from consent.runs.token_check import TOKEN_CHECK
from portal.runs import service
from portal.runs.executor import Executor
from portal.runs.listening import Ending, Listener
from portal.runs.models import Run
from tests.support import builders


def check(concurrency: int = 16, listener: Listener | None = None) -> tuple[Run, Ending]:
    run, _ = service.start(TOKEN_CHECK, scope={}, actor=builders.ACTOR, concurrency=concurrency)
    ending = Executor(run, listener=listener).work()
    run.refresh_from_db()
    return run, ending
