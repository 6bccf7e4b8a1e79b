"""One unit of a kind of bulk work, loaded, worked and written in the test's own thread."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from unittest import mock

from consent.models import CustomerConsent, PartnerConsent
from consent.runs import token_check
from consent.runs.token_check import TOKEN_CHECK
from consent.runs.verify import CONSENT_VERIFY
from consent.tokens.checking import CheckResult
from portal.runs.kinds import Context, Done, Kind, Outcome
from tests.support import builders


def work_unit(
    kind: Kind, key: int, *, scope: Mapping[str, Any] | None = None, meanwhile: Callable[[], object] = lambda: None
) -> Outcome:
    """Do for one unit what an executor does, without its waiting and judging of many.

    Args:
        meanwhile: happens after the work and before its result is written.
    """
    correlation_id = f"test-{secrets.token_hex(8)}"
    context = Context(
        run_id=0,
        actor=builders.ACTOR,
        scope=scope or {},
        options={},
        correlation_id=lambda key: correlation_id,
        halted=lambda: False,
    )
    subject = kind.load([key], context)[key]
    outcome = kind.work(key, subject, context)
    meanwhile()
    kind.write([Done(key=key, subject=subject, outcome=outcome)], context)
    if (rest := kind.after(subject, context)) is not None:
        rest()
    kind.settle([subject], context)
    return outcome


def check_token(consent: PartnerConsent, *, meanwhile: Callable[[], object] = lambda: None) -> CheckResult:
    """Check one partner's token as a run does; retries wait for nothing."""
    impatient = replace(token_check._RETRY, sleep=lambda seconds: None)
    with mock.patch.object(token_check, "_RETRY", impatient):
        result: CheckResult = work_unit(TOKEN_CHECK, consent.pk, meanwhile=meanwhile).result.result
    return result


def verify(consent: CustomerConsent) -> Outcome:
    """Read what a customer tenant holds, as a run does."""
    return work_unit(CONSENT_VERIFY, consent.pk)
