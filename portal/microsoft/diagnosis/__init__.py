"""One table from which every failure text that a person sees comes: cause, who must act, what to do next.

Protocol fields decide (``error``, ``suberror``, HTTP status); Microsoft's numbers only choose a better sentence or say
that only we are to blame, because Microsoft says that they change (R-15). An unknown number blames no partner and
no customer: as an unknown error, it means "look", never "dead".

The rows stand in ``entra_accounts``, ``entra_ours`` and ``services``; this module is the door.
"""

from __future__ import annotations

from portal.microsoft.diagnosis import entra, services
from portal.microsoft.diagnosis.entra import (
    callback_error_codes,
    diagnose_quoted,
    diagnose_token_error,
    named_token_lifetime,
    never_heals,
)
from portal.microsoft.diagnosis.rows import LATER, OWNER_CHOICES, Diagnosis, FailureClass, Owner
from portal.microsoft.diagnosis.services import diagnose_api_error
from portal.microsoft.errors import RemoteError, Unreachable

__all__ = [
    "LATER",
    "OWNER_CHOICES",
    "Diagnosis",
    "FailureClass",
    "Owner",
    "callback_error_codes",
    "diagnose",
    "diagnose_api_error",
    "diagnose_quoted",
    "diagnose_token_error",
    "named_token_lifetime",
    "never_heals",
]


def diagnose(error: RemoteError) -> Diagnosis:
    """Read an error that was raised already; total: every error has an answer."""
    quoted = error.code.startswith("AADSTS")  # which another service passed on
    if (error.service == entra.SERVICE or quoted) and not isinstance(error, Unreachable):
        return entra.read_raised(error)
    return services.read_raised(error)
