"""The kinds of bulk work that concern consents, and the jobs of the schedule."""

from __future__ import annotations

from consent.runs.apply_plan import APPLY_PLAN
from consent.runs.customer_sync import CUSTOMER_SYNC
from consent.runs.push import CUSTOMER_PUSH
from consent.runs.remove import CONSENT_REMOVE
from consent.runs.token_check import TOKEN_CHECK
from consent.runs.verify import CONSENT_VERIFY
from consent.schedule import JOBS
from portal.runs.registry import Work

WORK = Work(
    kinds=(TOKEN_CHECK, CUSTOMER_SYNC, CUSTOMER_PUSH, CONSENT_VERIFY, CONSENT_REMOVE, APPLY_PLAN),
    jobs=JOBS,
)
