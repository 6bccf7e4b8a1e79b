"""What commands and pages say when Microsoft or the vault refused something."""

from __future__ import annotations

from django.conf import settings

from portal.microsoft.diagnosis import Owner, diagnose
from portal.microsoft.errors import NoAnswer, RemoteError


def explain(error: RemoteError) -> str:
    """Return the failure in plain words: what happened, who must act, what to do, and the ids to find it by."""
    diagnosis = diagnose(error)
    if settings.TEST_ENDPOINTS and error.code == NoAnswer.REFUSED:
        return (
            f"The sandbox does not answer on port {settings.TEST_ENDPOINTS} (TEST_ENDPOINTS): start "
            f"it, or unset TEST_ENDPOINTS to talk to Microsoft. [{error}]"
        )
    who = {Owner.US: "you", Owner.NOBODY: "nobody, try again later"}.get(diagnosis.owner, diagnosis.owner.value)
    return f"{diagnosis.cause} Who must act: {who}. {diagnosis.remedy} [{error}]"
