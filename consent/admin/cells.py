"""Cells that several lists share."""

from __future__ import annotations

from consent.models import ApplicationRegistration
from portal.site.display import described, guid


def registration_cell(registration: ApplicationRegistration) -> str:
    """Return which of our applications a row is about. Two may have one name, so the application id is there too."""
    return described(registration.name, guid(registration.application_id, label="application id"))
