"""The waves in which an emergency stop is let go: release some partners, check their tokens, judge, and again.

A step is taken when a second person approves and then every minute. All that matters is in the row, so any process may
take it, and twice does no harm.
"""

from __future__ import annotations

from django.db import transaction
from django.db.models import Count

from consent.containment import service as containment
from consent.models import Containment, PartnerConsent
from consent.runs.token_check import TOKEN_CHECK
from consent.selection import Selection
from portal.audit.trail import Actor
from portal.runs import service, tasks
from portal.runs.kinds import OK
from portal.runs.models import Run, RunItem
from portal.text import number_of
from tenants.models import PartnerTenant, PartnerTenantQuerySet

GROWTH = 5
"""Each wave has five times the partners of the one before; the first has one."""
STOP_SHARE = 0.2
"""A wave in which more of the tokens that worked before do not work is the last, until a person lets it go on."""
_BY_CLOCK = Actor.system("consent.check_partnerconsent")
_CONCURRENCY = 16


def advance(one: Containment) -> str:
    """Take the step that is due, if any, and say what was done."""
    one = Containment.objects.select_related("run", "registration", "partner").get(pk=one.pk)
    if one.state != Containment.State.RESUMING:
        return f"{one}: nothing is being resumed"
    if one.halted:
        return f"{one}: halted after wave {one.wave}"
    if one.deactivated:
        return f"{one}: waits until its registration is activated at Microsoft"
    if one.run is not None:
        if not one.run.is_over:
            return f"{one}: wave {one.wave} is being checked"
        if why := _failed(one.run, one.wave):
            containment.halt(one, why)
            return f"{one}: halted. {why}"
    return _next_wave(one)


def _failed(run: Run, wave: int) -> str:
    """Return why the check of a wave did not end well; empty when it did."""
    if run.state != Run.State.DONE:
        state = run.get_state_display().lower()
        return f"The check of wave {wave} (run {run.pk}) did not end: {state}. {run.reason}".strip()
    done = run.items.filter(state=RunItem.State.DONE).order_by()
    classes = dict(done.values_list("failure_class").annotate(Count("pk")))
    failed = sum(number for name, number in classes.items() if name not in TOKEN_CHECK.harmless)
    unseen = sum(number for name, number in classes.items() if name in TOKEN_CHECK.harmless - {OK})
    if failed > STOP_SHARE * sum(classes.values()):
        return f"In wave {wave} (run {run.pk}) {number_of(failed, 'token')} of {sum(classes.values())} did not work."
    if unseen and not classes.get(OK):
        return f"In wave {wave} (run {run.pk}) no token was checked: another emergency stop holds them."
    return ""


def _next_wave(one: Containment) -> str:
    following = list(_waiting(one).values_list("pk", flat=True)[: GROWTH**one.wave])
    if not following:
        for held in containment.end(one):
            tasks.enqueue(held)
        return f"{one}: over"
    consents = PartnerConsent.objects.living().filter(partner__in=following, last_problem="")
    if one.registration_id is not None:
        consents = consents.filter(registration=one.registration_id)
    keys = tuple(sorted(consents.values_list("pk", flat=True)))
    run: Run | None = None
    with transaction.atomic():
        if keys:
            scope = Selection(tokens=keys).to_json()
            run, _ = service.start(TOKEN_CHECK, scope=scope, actor=_BY_CLOCK, concurrency=_CONCURRENCY)
        if not containment.release(one, to=following[-1], run=run):
            transaction.set_rollback(True)
            return f"{one}: another process took this step"
    if run is not None:
        tasks.enqueue(run)
    return f"{one}: wave {one.wave + 1}, {number_of(len(following), 'partner')} released"


def _waiting(one: Containment) -> PartnerTenantQuerySet:
    """Return the partners that are not released yet, in the order of their release."""
    partners = PartnerTenant.objects.filter(pk__gt=one.released_to or 0).order_by("pk")
    if one.partner_id is not None:
        partners = partners.filter(pk=one.partner_id)
    consents = PartnerConsent.objects.filter(generation__gt=0)
    if one.registration_id is not None:
        consents = consents.filter(registration=one.registration_id)
    return partners.filter(pk__in=consents.values("partner"))
