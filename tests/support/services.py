"""The services of the product, each function that takes an actor, and how one is called only to see whom it lets in."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from django.db import transaction

from consent.models import ConsentPlan
from consent.runs.token_check import TOKEN_CHECK
from consent.tokens.reconcile import Reconciler
from consent.two_persons import OFFBOARD
from portal.audit.trail import Actor
from portal.rights import Forbidden
from portal.runs.models import Run
from tests.support.source import module_name, modules

_DOORS = (".admin", ".jobs", ".management", ".models", ".views", ".site.admin")
# What decides about the right, where not the function alone does.
_CHOSEN: Mapping[str, Mapping[str, Any]] = {
    "consent.customers.plans.make_direct": {"purpose": ConsentPlan.Purpose.REMOVE},
    "consent.runs.apply_plan.start_direct": {"purpose": ConsentPlan.Purpose.REMOVE},
    "portal.decisions.service.ask": {"kind": OFFBOARD},
    "portal.decisions.service.in_emergency": {"kind": OFFBOARD},
    "portal.runs.service.resume": {"run": Run(kind=TOKEN_CHECK.name)},
    "portal.runs.service.start": {"kind": TOKEN_CHECK},
}


_ASKS = "asks itself"
_ENTRY = "writes down what is handed to it"
_PART = "a step of a service that asked"
_UNIT = "a unit of a run; the right was asked for when the run was begun"
_HOLDER = "the holder of a link signs in; the link, the cookie and the ID token decide"
_OWN = "a person's own filters; asks itself whether the person may see the list, and share"
_ACCOUNT = "a person's own factors; the session, a fresh proof or a one-time link decides"
_SESSIONS = "the sessions of an account whose rights, password or factors changed, or a person's own"
_OWNER = "for the owner of the tables: the database refuses everybody else"
_LOOK = "looks, and changes nothing; its page and its command ask"
_COMMAND = "begins a run for a command, by portal.runs.service.start"
ASK_NOTHING = {
    "consent.applications.rotation.add_row": _PART,
    "consent.applications.unused.retire_unused": _PART,
    "consent.customers.applying.apply_item": _UNIT,
    "consent.customers.applying.mark_broken": _UNIT,
    "consent.customers.consents.block": _UNIT,
    "consent.customers.consents.fail": _UNIT,
    "consent.customers.consents.write_intent": _UNIT,
    "consent.customers.finishing.finish": _UNIT,
    "consent.customers.observations.write": _UNIT,
    "consent.doctor.examining.examine": _LOOK,
    "consent.invitations.links.revoke_all": _PART,
    "consent.moving_in.tokens.adopt": _UNIT,
    "consent.offboarding.erasure.erase_all": _PART,
    "consent.sign_in.approvals.hold": _HOLDER,
    "consent.sign_in.flow.finish": _HOLDER,
    "consent.sign_in.flow.finish_admin_consent": _HOLDER,
    "consent.sign_in.flow.start": _HOLDER,
    "consent.tokens.checking.write_verdicts": _UNIT,
    "consent.tokens.custody.Custody.store_new": _PART,
    "consent.tokens.custody.Custody.take_up_older": _PART,
    "consent.tokens.saving.Renewals.write": _UNIT,
    "consent.tokens.service.TokenService.store_new_consent": _PART,
    "consent.tokens.service.TokenService.take_up_older": _PART,
    "portal.audit.archive.remove": _OWNER,
    "portal.audit.trail.record": _ENTRY,
    "portal.audit.walking.note_walk": _ENTRY,
    "portal.decisions.records.write_event": _ENTRY,
    "portal.incidents.receivers.use_of_an_emergency_account": "reports the actor",
    "portal.incidents.watch.watch_audit_trail": _ENTRY,
    "portal.rights.require": _ASKS,
    "portal.rights.require_unlimited": _ASKS,
    "portal.runs.console.begin": _COMMAND,
    "portal.runs.console.begin_with": _COMMAND,
    "portal.site.preferences.forget_filter": _OWN,
    "portal.site.preferences.keep_filter": _OWN,
    "portal.site.sight.require_sight": _ASKS,
    "portal.site.sight.within": _ASKS,
    "portal.staff.accounts.use_link": _ACCOUNT,
    "portal.staff.factors.add_app": _ACCOUNT,
    "portal.staff.factors.new_recovery_codes": _ACCOUNT,
    "portal.staff.factors.remove": _ACCOUNT,
    "portal.staff.factors.remove_all": _ACCOUNT,
    "portal.staff.passkeys.add": _ACCOUNT,
    "portal.staff.roles.refuse_own": _ASKS,
    "portal.staff.sessions.end": _SESSIONS,
    "portal.staff.sessions.end_all": _SESSIONS,
    "tenants.gdap_sync.sync_relationships": _UNIT,
    "tenants.sync.sync_customers": _UNIT,
}
"""Services that ask for no right, and why not. What changes or hands out something for a person is none of them."""


class Reached(Exception):
    """The function went on to what it was asked to do."""


class Untouchable:
    """Stands for every argument but the actor: whoever looks at it went on before the actor was judged."""

    def _reached(self, *_: object, **__: object) -> Any:
        raise Reached

    __getattr__ = __call__ = __iter__ = __len__ = __getitem__ = __contains__ = __str__ = __eq__ = __hash__ = _reached
    __lt__ = __gt__ = __bool__ = __enter__ = __int__ = __float__ = __add__ = __radd__ = _reached


def services() -> dict[str, Callable[..., Any]]:
    """Return what takes an actor and may be called from elsewhere, by its dotted name; pages and commands left out."""
    found = dict(_functions())
    nothing: Any = Untouchable()
    found["consent.tokens.reconcile.Reconciler.run"] = lambda *, actor: Reconciler(
        vault=nothing, inventory=nothing, actor=actor
    ).run()
    return found


def _functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    for path in modules():
        name = module_name(path)
        if any(f"{door}." in f"{name}." for door in _DOORS) or "actor: Actor" not in path.read_text():
            continue
        module = import_module(name)
        holders: list[Any] = [module, *(one for _, one in inspect.getmembers(module, inspect.isclass))]
        for holder in holders:
            if holder is not module and (holder.__module__ != name or "Protocol" in str(holder.__mro__)):
                continue
            for key, function in inspect.getmembers(holder, inspect.isfunction):
                own = function.__module__ == name and not key.startswith("_")
                if own and "actor" in inspect.signature(function).parameters:
                    yield f"{name}.{holder.__name__ + '.' if holder is not module else ''}{key}", function


def lets_in(name: str, function: Callable[..., Any], actor: Actor) -> bool:
    """Tell whether a service goes on for this actor. Nothing stays of what it does."""
    given: dict[str, Any] = {
        key: Untouchable()
        for key, parameter in inspect.signature(function).parameters.items()
        if key != "actor" and parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    }
    given |= _CHOSEN.get(name, {})
    with transaction.atomic():
        try:
            function(**given, actor=actor)
        except Forbidden:
            return False
        except Exception:  # noqa: BLE001, S110  # it went on, and found nothing to work with
            pass
        finally:
            transaction.set_rollback(True)
    return True
