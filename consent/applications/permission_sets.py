"""Make and change the permission sets of our own: what a change will mean for how many partners, and the change itself.

A change takes nothing from partners and sends nothing: from then on they are asked for the new set, and those that have
not granted all of it differ from what we want, on each page that compares both, until they consent again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import F, QuerySet

from consent import alarms
from consent.alarms import Cause
from consent.grants import Grants
from consent.models import ApplicationRegistration, OwnPermissionSet, PartnerConsent
from consent.permissions import (
    APPLICATION_PERMISSION_IDS,
    PERMISSION_IDS,
    UNCONFIRMED_IDS,
    Permission,
    PermissionSet,
    parse_scopes,
)
from consent.words.permissions import PERMISSION_WORDS, RESOURCE_NAMES, resource_name
from portal.audit.trail import Actor, record
from portal.fields import validate_name
from portal.microsoft.clouds import GRAPH_APPLICATION_ID, PARTNER_CENTER_APPLICATION_ID, get_cloud
from portal.microsoft.identifiers import InvalidIdentifier, canonical_guid, parse_application_id
from portal.rights import require
from portal.text import number_of

MOST = 40
"""Permissions of one set: all stand in the address of the authorize request, which Entra limits (AADSTS90015)."""
_FIRST = (PARTNER_CENTER_APPLICATION_ID, GRAPH_APPLICATION_ID)
_OVERTAKEN = "Somebody else changed this permission set meanwhile; look at it first."
_WITHOUT_PARTNER_CENTER = (
    "Ask for user_impersonation of Partner Center as well: each sign-in is proven by a call of it."
)


class PermissionSetRefused(ValueError):
    """This cannot be a permission set; ``problems`` has a text for each line with a mistake, by its place from 0."""

    def __init__(self, text: str, problems: Mapping[int, str] | None = None) -> None:
        super().__init__(text)
        self.problems = dict(problems or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Concerned:
    """One registration that asks for the set, and how many of its partners must consent again after the change."""

    registration: ApplicationRegistration
    partners: int
    """Partners whose token is in use."""
    lacking: int
    unproven: int
    again: int
    """Those with either, each counted once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a change of a set will mean."""

    added: Grants
    removed: Grants
    other_words: bool
    """Whether words, names of services or ids change."""
    concerned: list[Concerned]


def tidy(lines: Sequence[Mapping[str, str]]) -> PermissionSet:
    """Return the set of these lines in the order in which it is asked for: Partner Center, Graph, the others.

    Args:
        lines: ``resource``, ``name``, ``id``, ``service``, ``title`` and ``why``, all texts; ``id``, ``title`` and
            ``why`` may be left out where the product knows them, ``service`` for resources of Microsoft.

    Raises:
        PermissionSetRefused: a line is no delegated permission, or they are not a set.
    """
    found: dict[tuple[str, str], Permission] = {}
    problems: dict[int, str] = {}
    for place, line in enumerate(lines):
        try:
            one = _read(line)
        except PermissionSetRefused as refused:
            problems[place] = str(refused)
            continue
        if (one.resource, one.name.lower()) in found:
            problems[place] = "This permission stands in the set twice."
        elif any(one.id == other.id for other in found.values() if other.resource == one.resource):
            problems[place] = "Another permission of this service has the same id."
        found.setdefault((one.resource, one.name.lower()), one)
    if problems:
        raise PermissionSetRefused("Some permissions are not right yet; nothing was saved.", problems)
    if (PARTNER_CENTER_APPLICATION_ID, "user_impersonation") not in found:
        raise PermissionSetRefused(_WITHOUT_PARTNER_CENTER)
    if len(found) > MOST:
        raise PermissionSetRefused(f"A set has {MOST} permissions at most: all stand in one address.")
    _one_name_each(found.values())
    order = {resource: place for place, resource in enumerate(_FIRST)}
    return PermissionSet(permissions=tuple(sorted(found.values(), key=lambda one: order.get(one.resource, len(order)))))


def _one_name_each(permissions: Iterable[Permission]) -> None:
    """Refuse two names of one service, and one name of two."""
    names: dict[str, str] = {}
    for one in permissions:
        if names.setdefault(one.resource, one.service) != one.service:
            raise PermissionSetRefused(f"One service has two names here: {names[one.resource]} and {one.service}.")
    called = [name for name in names.values() if name]
    if twice := next((name for name in called if called.count(name) > 1), ""):
        raise PermissionSetRefused(f"Two services have the name {twice}; partners could not tell them apart.")


def _read(line: Mapping[str, str]) -> Permission:
    """Return the permission of one line."""
    given = {name: " ".join(line.get(name, "").split()) for name in Permission.__dataclass_fields__}
    try:
        resource = parse_application_id(given["resource"])
    except InvalidIdentifier:
        raise PermissionSetRefused("Choose the service, or give the application id of a service of your own.") from None
    name = _name(given["name"])
    known = {one.lower(): one for one in PERMISSION_IDS.get(resource, {})}
    name = known.get(name.lower(), name)  # Microsoft's own spelling
    right = PERMISSION_IDS.get(resource, {}).get(name, "")
    return Permission(
        resource=resource,
        name=name,
        id=_id(given["id"] or right, resource, name, right),
        service=_service(given["service"], resource),
        **_words(given, f"{resource}/{name}"),
    )


def _name(text: str) -> str:
    if text.lower() in {"openid", "profile", "offline_access", "email"}:
        raise PermissionSetRefused(f"{text} belongs to each sign-in and is asked for anyway. Leave it out.")
    if text.lower().endswith(".default"):
        raise PermissionSetRefused("Name each permission; .default is none.")
    try:
        [name] = parse_scopes([text])
    except ValueError as error:
        raise PermissionSetRefused(str(error)) from None
    return name


def _id(text: str, resource: str, name: str, right: str) -> str:
    guid = canonical_guid(text)
    if guid is None:
        raise PermissionSetRefused(
            f"Give the id of the delegated permission {name}, a GUID. Microsoft's reference of permissions names two "
            "ids; take the one of the column Delegated."
        )
    if guid in APPLICATION_PERMISSION_IDS:
        raise PermissionSetRefused(
            "This is the id of an application permission. The Secure Application Model has delegated permissions only."
        )
    if right and guid != right and right not in UNCONFIRMED_IDS:
        raise PermissionSetRefused(
            f"The delegated permission {name} of {resource_name(resource)} has the id {right}. Another id is another "
            "permission, perhaps the application permission of the same name."
        )
    if owner := {one: other for other, one in PERMISSION_IDS.get(resource, {}).items() if other != name}.get(guid):
        raise PermissionSetRefused(f"This is the id of {owner}.")
    return guid


def _service(text: str, resource: str) -> str:
    if resource in RESOURCE_NAMES:
        return ""
    if not text:
        raise PermissionSetRefused("Say what this service is called; partners read the name.")
    _visible(text)
    if text.lower().startswith(("microsoft", "azure")):
        raise PermissionSetRefused("Partners would take this for a service of Microsoft. Choose those by their name.")
    return text


def _words(given: Mapping[str, str], key: str) -> dict[str, str]:
    """Return title and why; empty where the product's own words serve."""
    title, why = given["title"], given["why"]
    ours = PERMISSION_WORDS.get(key)
    if ours is not None and title in {"", ours.title} and why in {"", ours.why}:
        return {"title": "", "why": ""}
    title, why = title or (ours.title if ours else ""), why or (ours.why if ours else "")
    if not title or not why:
        raise PermissionSetRefused("Say in plain words what it allows and what you need it for; partners read both.")
    if len(title) > 100 or len(why) > 300:
        raise PermissionSetRefused("What it allows has 100 characters at most, and why 300.")
    _visible(title)
    _visible(why)
    return {"title": title, "why": why}


def _visible(text: str) -> None:
    try:
        validate_name(text)
    except ValidationError as error:
        raise PermissionSetRefused(" ".join(error.messages)) from None


def create(*, name: str, note: str, wanted: PermissionSet, actor: Actor) -> OwnPermissionSet:
    """Make a set that no registration asks for yet.

    Raises:
        PermissionSetRefused: its name is none, or is taken.
    """
    require(actor, "consent.add_ownpermissionset")
    row = OwnPermissionSet(name=name, note=note, permissions=wanted.to_json())
    with transaction.atomic():
        _save(row)
        record(
            "permission_set.created",
            actor=actor,
            subject={"permission_set": row.pk},
            details={"name": row.name, "permissions": _told(wanted)},
        )
    return row


def preview(row: OwnPermissionSet, wanted: PermissionSet) -> Preview:
    """Say what it will mean to ask for this: nothing is saved. Four queries for each registration that uses the set."""
    before, after = row.value.resources(), wanted.resources()
    return Preview(
        added=after - before,
        removed=before - after,
        other_words=row.value.digest != wanted.digest and not after - before and not before - after,
        concerned=[concerned(one, wanted) for one in in_use(row)],
    )


def concerned(registration: ApplicationRegistration, wanted: PermissionSet) -> Concerned:
    """Count the partners of this registration against a set."""
    consents = PartnerConsent.objects.in_use().filter(registration=registration)
    return Concerned(
        registration=registration,
        partners=_partners(consents),
        lacking=_partners(consents.lacking_permissions(wanted)),
        unproven=_partners(consents.permissions_unproven(wanted)),
        again=_partners(consents.to_consent_again(wanted)),
    )


def in_use(row: OwnPermissionSet) -> QuerySet[ApplicationRegistration]:
    """Return the registrations that ask for this set and are not retired."""
    return ApplicationRegistration.objects.filter(own_set=row).exclude(state=ApplicationRegistration.State.RETIRED)


def change(
    row: OwnPermissionSet, *, name: str, note: str, wanted: PermissionSet, shown: str, actor: Actor
) -> list[Concerned]:
    """Ask for this from now on. Returns the registrations that use the set, with their partners.

    Args:
        shown: ``digest`` of the set that the person saw and changed.

    Raises:
        PermissionSetRefused: changed by somebody else meanwhile, a cloud of a registration lacks a service, or the
            name is taken.
    """
    require(actor, "consent.change_ownpermissionset")
    with transaction.atomic():
        # Writes nothing new; the row is held until the end, so that of two changes the second one is refused.
        OwnPermissionSet.objects.filter(pk=row.pk).update(name=F("name"))
        held = OwnPermissionSet.objects.get(pk=row.pk)
        before = held.value
        if before.digest != shown:
            raise PermissionSetRefused(_OVERTAKEN)
        check_clouds(held, wanted)
        details = {
            "before": {"name": held.name, "permissions": _told(before)},
            "after": {"name": name, "permissions": _told(wanted)},
        }
        held.name, held.note, held.permissions = name, note, wanted.to_json()
        _save(held)
        record("permission_set.changed", actor=actor, subject={"permission_set": held.pk}, details=details)
        seen = [concerned(one, wanted) for one in in_use(held)]
        for one in seen:
            tell(one)
    return seen


def check_clouds(row: OwnPermissionSet, wanted: PermissionSet) -> None:
    """Make sure that each registration that uses the set has all its services.

    Raises:
        PermissionSetRefused: a cloud lacks one.
    """
    for registration in in_use(row):
        cloud = get_cloud(registration.cloud)
        if absent := wanted.absent_in(cloud):
            names = ", ".join(resource_name(one) for one in absent)
            raise PermissionSetRefused(
                f"{registration} is in {cloud.name}, which has no {names}. Make another set for it first."
            )


def tell(seen: Concerned) -> None:
    """Open the incident of partners that must consent again, or settle it when there is none."""
    if seen.again and seen.registration.state == ApplicationRegistration.State.ACTIVE:
        alarms.report(Cause.CONSENT_AGAIN, seen.registration, partners=number_of(seen.again, "partner"))
    else:
        alarms.settle([Cause.CONSENT_AGAIN], [seen.registration.pk])


def _save(row: OwnPermissionSet) -> None:
    try:
        row.full_clean()
    except ValidationError as error:
        raise PermissionSetRefused(" ".join(error.messages)) from None
    row.save()


def _told(wanted: PermissionSet) -> dict[str, list[str]]:
    """Return what the trail keeps: names by resource."""
    return wanted.resources().to_json()


def _partners(rows: QuerySet[PartnerConsent]) -> int:
    return rows.order_by().values("partner").distinct().count()
