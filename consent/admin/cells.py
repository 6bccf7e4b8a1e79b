"""Cells that several lists share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

from consent.models import ApplicationRegistration, Attempt
from consent.words.permissions import resource_name
from portal.site.declared import Column, column
from portal.site.display import EMPTY, described, guid, moment, words


def registration_cell(registration: ApplicationRegistration) -> str:
    """Return which of our applications a row is about. Two may have one name, so the application id is there too."""
    return described(registration.name, guid(registration.application_id, label="application id"))


def registration_column(path: str, *, sorts: bool = True) -> Column:
    """Return a column of the registration at this path, sorted by its name."""
    find, ordering = attrgetter(path.replace("__", ".")), f"{path}__name" if sorts else None
    return column("Application registration", lambda row: registration_cell(find(row)), ordering=ordering)


def why_cell(consent: Any) -> str:
    """Return the newest that is known of a consent (``with_words``); what failed says what it was, and when."""
    if not consent.attempt:
        return consent.why or EMPTY
    return described(described(consent.why, f"{Attempt(consent.attempt).label} failed"), moment(consent.attempt_at))


def grants_cell(grants: Mapping[str, Iterable[str]]) -> str:
    """Return the permissions of each service, by its name.

    Args:
        grants: names of delegated permissions by the application id of their service.
    """
    return words([f"{resource_name(resource)}: {', '.join(scopes)}" for resource, scopes in grants.items()])
