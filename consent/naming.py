"""Which of our application registrations somebody means. One partner may have consented to several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from consent.models import ApplicationRegistration
from portal.microsoft.clouds import CLOUD_CHOICES
from portal.microsoft.identifiers import InvalidIdentifier, parse_application_id
from tenants.models import CustomerTenant, PartnerTenant

_CLOUDS = dict(CLOUD_CHOICES)
_LONGEST_LABEL = 200
_LONGEST_NUMBER = 19  # digits of a key


class UnknownRegistration(LookupError):
    """There is no such application registration, or none that can belong to this partner; nothing was sent."""


class SeveralRegistrations(LookupError):
    """Several application registrations fit and none was chosen; the text lists them. Nothing was sent."""


def registration_named(text: str, *, cloud: str = "") -> ApplicationRegistration:
    """Return the registration that somebody names by its application id or by its number.

    Args:
        cloud: of this cloud only. One application id may be registered in two clouds.

    Raises:
        UnknownRegistration: there is none, or only one of another cloud.
        SeveralRegistrations: the application id stands in several clouds.
    """
    known = ApplicationRegistration.objects.order_by("pk")
    if text.isascii() and text.isdecimal() and len(text) < _LONGEST_NUMBER:
        known = known.filter(pk=int(text))
    else:
        try:
            known = known.filter(application_id=parse_application_id(text))
        except InvalidIdentifier as error:
            raise UnknownRegistration(f"{error} A registration is named by its application id or number.") from None
    everywhere = list(known)
    found = [one for one in everywhere if cloud in ("", one.cloud)]
    if len(found) == 1:
        return found[0]
    if found:
        raise SeveralRegistrations(f"This application id stands in several clouds; name a number: {listed(found)}.")
    if everywhere:
        raise UnknownRegistration(
            f"{everywhere[0].name} is registered in {_CLOUDS[everywhere[0].cloud]}, not in {_CLOUDS[cloud]}."
        )
    raise UnknownRegistration(f"There is no application registration {text}; see the list in the admin.")


def active_registration(text: str | None, *, cloud: str = "") -> ApplicationRegistration:
    """Return the active registration that somebody names, or else the only one, of all clouds or of this one.

    Raises:
        UnknownRegistration: there is none, or it is not active.
        SeveralRegistrations: several are active, and none was named.
    """
    if text:
        registration = registration_named(text, cloud=cloud)
        if registration.state != ApplicationRegistration.State.ACTIVE:
            state = registration.get_state_display().lower()
            raise UnknownRegistration(f"{registration.name} is not active but {state}; activate it in the admin.")
        return registration
    active = ApplicationRegistration.objects.filter(state=ApplicationRegistration.State.ACTIVE).order_by("pk")
    fitting = list(active.filter(cloud=cloud) if cloud else active)
    if not fitting:
        where = f" in {_CLOUDS[cloud]}" if cloud else ""
        raise UnknownRegistration(f"No application registration is active{where}; see the admin.")
    if len(fitting) > 1:
        raise SeveralRegistrations(
            f"{len(fitting)} application registrations are active; name one (--registration): {listed(fitting)}."
        )
    return fitting[0]


def listed(registrations: Iterable[ApplicationRegistration]) -> str:
    """Return registrations as somebody chooses one of them: application id, name and number of each."""
    return ", ".join(f"{one.application_id} ({one.name}, number {one.pk})" for one in registrations)


def registration_names() -> dict[int, str]:
    """Return the name of each registration by its key; those of one name have their application ids beside it."""
    rows = list(ApplicationRegistration.objects.order_by("pk").values_list("pk", "name", "application_id"))
    times = Counter(name for _, name, _ in rows)
    return {key: name if times[name] == 1 else f"{name}, {application}" for key, name, application in rows}


def unit_label(name: str, registration: str) -> str:
    """Return what one unit of a run is about: a partner or customer, and our application there."""
    tail = f" ({registration})"
    return f"{name[: _LONGEST_LABEL - len(tail)]}{tail}"


def line_names(
    partner: PartnerTenant, registration: ApplicationRegistration | None, customer: CustomerTenant | None = None
) -> dict[str, str]:
    """Return the columns of a JSON line that say what it is about: the partner, our application, and the customer.

    ``registration`` is the application id; ``tenant_id`` is the partner's, ``customer`` the customer's tenant id.
    """
    names = {
        "partner": partner.name,
        "tenant_id": partner.tenant_id,
        "registration": "" if registration is None else registration.application_id,
        "registration_name": "" if registration is None else registration.name,
    }
    return names if customer is None else names | {"customer": customer.tenant_id, "company": customer.company_name}
