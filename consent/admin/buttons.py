"""The buttons of a partner's and a customer's page: each action as a form or a link that this person may use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import Model
from django.http import HttpRequest
from django.urls import reverse

from consent.hub.facts import PartnerFacts
from consent.hub.steps import Action, NextStep
from consent.invitations.links import MAX_LIFETIME
from consent.models import ApplicationRegistration, ConsentLink
from portal.mail import can_send
from tenants.models import CustomerTenant, PartnerTenant

type Field = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Button:
    """One thing to press.

    Attributes:
        posts: whether it sends a form; else it is a link.
        fields: hidden fields of the form.
        link: set for the small form that makes a consent link.
        is_open: whether that form is shown at once.
    """

    label: str
    address: str
    posts: bool = False
    fields: Sequence[Field] = ()
    dangerous: bool = False
    link: LinkForm | None = None
    is_open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkForm:
    """What the form that makes a link offers; ``chosen`` is the registration that is chosen already."""

    registrations: Sequence[ApplicationRegistration]
    chosen: ApplicationRegistration | None
    can_send: bool
    addresses: str
    days: int
    most_days: int


def _page(model: type[Model], key: object) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_change", args=[key])


def list_action(model: type[Model], action: str, keys: Iterable[int], label: str, *, dangerous: bool = False) -> Button:
    """Return a button that sends these rows to an action of their list, which asks first."""
    return Button(
        label=label,
        address=reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist"),
        posts=True,
        fields=(("action", action), ("index", "0"), *((ACTION_CHECKBOX_NAME, str(key)) for key in keys)),
        dangerous=dangerous,
    )


def list_actions(request: HttpRequest, row: Model, without: Iterable[str] = ()) -> list[Button]:
    """Return the actions of a row's list that this person may press, for this row alone."""
    page = admin.site.get_model_admin(type(row))
    left_out = {"export_csv", *without}
    return [
        list_action(type(row), name, [row.pk], str(action.description))
        for name, action in page.get_actions(request).items()
        if action is not None and name not in left_out
    ]


def link_button(
    request: HttpRequest,
    facts: PartnerFacts,
    registrations: Sequence[ApplicationRegistration],
    chosen: ApplicationRegistration | None,
    *,
    label: str,
    is_open: bool,
) -> Button | None:
    """Return the form that makes a link for a partner; None for a person who may not, or without a registration."""
    if not registrations or not request.user.has_perm("consent.add_consentlink"):
        return None
    may_send = can_send() and request.user.has_perm("consent.send_consentlink")
    only = registrations[0] if len(registrations) == 1 else None
    return Button(
        label=label,
        address=reverse("admin:consent_consentlink_add"),
        posts=True,
        fields=(("partner", str(facts.partner.pk)), ("kind", ConsentLink.Kind.SIGN_IN.value)),
        link=LinkForm(
            registrations=registrations,
            chosen=chosen if chosen in registrations else only,
            can_send=may_send and bool(facts.addresses),
            addresses=", ".join(facts.addresses),
            days=settings.LINK_LIFETIME_DAYS,
            most_days=MAX_LIFETIME.days,
        ),
        is_open=is_open,
    )


def ask_button(row: PartnerTenant | CustomerTenant, action: Action, registration: int | None = None) -> Button:
    """Return a button that has something done for one row at once, because it changes nothing at Microsoft."""
    name = f"admin:tenants_{type(row)._meta.model_name}_ask"
    return Button(
        label=action.label,
        address=reverse(name, args=[row.pk, action.value]),
        posts=True,
        fields=() if registration is None else (("registration", str(registration)),),
    )


PERMISSIONS = {
    Action.CHECK: "consent.check_partnerconsent",
    Action.RENEW: "consent.renew_partnerconsent",
    Action.SYNCHRONISE: "tenants.sync_partnertenant",
    Action.READ_AGAIN: "consent.verify_customerconsent",
    Action.PLAN: "consent.add_consentplan",
}
"""What a person needs for what is done at once."""

# Links: what a person needs to see the page, and the page.
_SEEN: dict[Action, tuple[str, Callable[[PartnerTenant, NextStep], str]]] = {
    Action.APPROVE: (
        "consent.view_waitingtoken",
        lambda partner, step: reverse("admin:consent_waitingtoken_change", args=[step.key]),
    ),
    Action.RESUME: ("runs.view_run", lambda partner, step: reverse("admin:runs_run_change", args=[step.key])),
    Action.SEE_OFFBOARDING: (
        "consent.view_offboarding",
        lambda partner, step: reverse("admin:consent_offboarding_change", args=[step.key]),
    ),
    Action.SEE_CREDENTIAL: (
        "consent.view_applicationcredential",
        lambda partner, step: reverse(
            "admin:consent_applicationcredential_change",
            args=[step.consent.registration.credential_id if step.consent else 0],
        ),
    ),
    Action.SEE_CUSTOMERS: (
        "tenants.view_customertenant",
        lambda partner, step: reverse("admin:tenants_partnertenant_customers", args=[partner.pk]),
    ),
    Action.SEE_GDAP: (
        "tenants.view_partnertenant",
        lambda partner, step: reverse("admin:tenants_partnertenant_gdap", args=[partner.pk]),
    ),
    Action.SEE_AUDIT: (
        "audit.view_auditevent",
        lambda partner, step: reverse("admin:tenants_partnertenant_audit", args=[partner.pk]),
    ),
}


def buttons_of_partner(request: HttpRequest, facts: PartnerFacts, step: NextStep) -> list[Button]:
    """Return what does the next step of a partner, as far as this person may."""
    partner = facts.partner
    found: list[Button | None] = []
    for action in step.actions:
        registration = step.consent.registration if step.consent else None
        if action in {Action.SEND_LINK, Action.INVITE_AGAIN}:
            is_open = action is Action.SEND_LINK
            found.append(
                link_button(request, facts, facts.invitable, registration, label=action.label, is_open=is_open)
            )
        elif action in PERMISSIONS:
            if request.user.has_perm(PERMISSIONS[action]):
                found.append(ask_button(partner, action, registration.pk if registration else None))
        elif action is Action.ENABLE:
            if request.user.has_perm("tenants.disable_partnertenant"):
                found.append(list_action(PartnerTenant, "enable_partners", [partner.pk], action.label))
        elif request.user.has_perm(_SEEN[action][0]):
            found.append(Button(label=action.label, address=_SEEN[action][1](partner, step)))
    return [one for one in found if one is not None]


def buttons_of_customer(request: HttpRequest, customer: CustomerTenant, step: NextStep) -> list[Button]:
    """Return what does the next step of a customer, as far as this person may; the partner's page does the rest."""
    found = [
        ask_button(customer, action)
        for action in step.actions
        if action in PERMISSIONS and request.user.has_perm(PERMISSIONS[action])
    ]
    if not found and request.user.has_perm("tenants.view_partnertenant"):
        found.append(Button(label=f"See {customer.partner.name}", address=_page(PartnerTenant, customer.partner_id)))
    return found
