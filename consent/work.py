"""The kinds of bulk work that concern consents."""

from __future__ import annotations

from consent.runs.apply_plan import APPLY_PLAN
from consent.runs.customer_sync import CUSTOMER_SYNC
from consent.runs.find_tenants import FIND_TENANTS
from consent.runs.import_tokens import IMPORT_TOKENS
from consent.runs.token_check import TOKEN_CHECK
from consent.runs.verify import CONSENT_VERIFY
from portal.runs.registry import Work

WORK = Work(
    kinds=(TOKEN_CHECK, CUSTOMER_SYNC, CONSENT_VERIFY, APPLY_PLAN, FIND_TENANTS, IMPORT_TOKENS),
    former={"customer_push": "Push of consent", "consent_remove": "Removal of customer consents"},
)
