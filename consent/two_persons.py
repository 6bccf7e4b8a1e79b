"""What two persons decide about in consent (S-50), and how each is shown to the one who decides."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.models import QuerySet

from consent.containment import service as containment
from consent.customers.plans import PlanRefused, counts
from consent.models import (
    ApplicationRegistration,
    ConsentPlan,
    ConsentPlanItem,
    Containment,
    CustomerConsent,
    Offboarding,
    PartnerConsent,
)
from consent.naming import registration_names
from consent.offboarding import partner_erasure, steps
from consent.offboarding.erasure import StillActive
from consent.runs import resuming
from consent.runs.apply_plan import CONCURRENCY, WAIT, start_apply, start_direct, unfinished_direct
from consent.selection import Selection, counted
from consent.tokens.custody import TokenUnavailable
from consent.vault.base import VaultConfigurationError
from consent.vault.keys import KeyRing
from consent.vault.rotation import RetireRefused
from portal.decisions.kinds import Approval, CannotBeDone, Change, Kind, Parameters, Preview, Result, TwoPersons
from portal.microsoft.errors import RemoteError
from portal.runs import tasks
from portal.text import number_of
from tenants.models import PartnerTenant

MOST_CONSENTS = 10_000
"""Consents that one request to remove names; more are asked for in several."""
_NAMED = 20


def _named(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _NAMED:,} more" if len(every) > _NAMED else ""
    return f"{', '.join(every[:_NAMED])}{more}"


def _partner(parameters: Parameters) -> PartnerTenant:
    partner = PartnerTenant.objects.filter(pk=parameters["partner"]).first()
    if partner is None:
        raise CannotBeDone("There is no such partner any more.")
    return partner


def _rows_of_partner(parameters: Parameters) -> QuerySet[PartnerTenant]:
    return PartnerTenant.objects.filter(pk=parameters["partner"])


# --- offboarding a partner ------------------------------------------------------------------------------------------


def offboarding_of(partner: PartnerTenant, *, wait: float = WAIT) -> dict[str, Any]:
    """Return the parameters to offboard this partner; ``wait`` is in seconds, for each proof."""
    return {"partner": partner.pk, "wait": wait}


def _see_offboarding(parameters: Parameters) -> Preview:
    partner = _partner(parameters)
    if partner.switch == PartnerTenant.Switch.OFFBOARDED:
        raise CannotBeDone(f"{partner.name} was offboarded before; its report is in the admin.")
    if Offboarding.objects.open().filter(partner=partner).exists():
        raise CannotBeDone(f"{partner.name} is being offboarded already; its page says how far it is.")
    found = steps.reach(partner)
    held = f" ({found.registrations})" if found.registrations else ""
    number = number_of(found.customers_never_read, "customer")
    never_read = [Change(label="Customers that were never read", now=number, then="not looked at")]
    if not found.customers_never_read:
        never_read = []
    return Preview(
        what=f"Offboard {partner.name}",
        whom=f"{partner.name}, tenant {partner.tenant_id}",
        subject={"partner": partner.pk},
        changes=[
            Change(
                label="Our consent in customer tenants",
                now=f"{number_of(found.customers, 'customer tenant')}{held}",
                then=f"removed in each; the proof is waited for {parameters['wait']:g} seconds each",
            ),
            *never_read,
            Change(label="Open links", now=number_of(found.open_links, "link"), then="closed at once"),
            Change(
                label="Tokens of the partner",
                now=number_of(found.tokens, "token"),
                then="switched off and erased, when all customers are proven to be without our consent",
            ),
            Change(label="The partner", now="in use" if partner.is_active else "disabled", then="offboarded for good"),
        ],
        cannot_be_undone="Erased tokens do not come back: the partner would have to consent anew.",
    )


def _offboard(parameters: Parameters, approved: Approval) -> Result:
    begun = steps.start(_partner(parameters), approved=approved, wait_seconds=parameters["wait"])
    if begun.run is not None:
        tasks.enqueue(begun.run)
    return Result(words="The offboarding has begun; the workers do it.", subject={"offboarding": begun.pk})


OFFBOARD = Kind(
    key="offboard_partner",
    rows=_rows_of_partner,
    title="Offboard a partner",
    permission="consent.offboard_partner",
    preview=_see_offboarding,
    execute=_offboard,
    refusals=(CannotBeDone, steps.OffboardingRefused),
)


# --- finishing an offboarding although customers remain -------------------------------------------------------------


def finish_of(offboarding: Offboarding) -> dict[str, Any]:
    """Return the parameters to finish this offboarding."""
    return {"offboarding": offboarding.pk}


def _offboarding(parameters: Parameters) -> Offboarding:
    return Offboarding.objects.select_related("partner").get(pk=parameters["offboarding"])  # none is ever deleted


def _see_finishing(parameters: Parameters) -> Preview:
    one = _offboarding(parameters)
    if one.state != Offboarding.State.WAITING:
        raise CannotBeDone("No decision is waited for: see how far this offboarding is.")
    names = {str(row.customer) for row in steps.remaining(one).select_related("customer")}
    return Preview(
        what=f"Finish the offboarding of {one.partner.name} with customers that remain",
        whom=f"{one.partner.name}, tenant {one.partner.tenant_id}",
        subject={"partner": one.partner_id, "offboarding": one.pk},
        changes=[
            Change(
                label="Customers that are not proven to be without our consent",
                now=f"{len(names):,}: {_named(sorted(names))}",
                then="left as they are; the report says who must act for each",
            ),
            Change(label="Tokens of the partner", now="kept, to try again", then="switched off and erased"),
            Change(label="The partner", now="is being offboarded", then="offboarded for good"),
        ],
        cannot_be_undone="Without the partner's token we can neither remove our consent there nor look whether it is.",
    )


def _finish(parameters: Parameters, approved: Approval) -> Result:
    one = _offboarding(parameters)
    steps.finish_anyway(one, approved=approved)
    return Result(words="The schedule closes it within a minute.", subject={"offboarding": one.pk})


FINISH = Kind(
    key="finish_offboarding",
    title="Finish an offboarding with customers that remain",
    permission="consent.offboard_partner",
    preview=_see_finishing,
    rows=lambda parameters: Offboarding.objects.filter(pk=parameters["offboarding"]),
    execute=_finish,
    refusals=(CannotBeDone, steps.OffboardingRefused),
)


# --- erasing tokens -------------------------------------------------------------------------------------------------


def _see_erasing(parameters: Parameters) -> Preview:
    partner = _partner(parameters)
    if partner.is_active:
        raise CannotBeDone(f"{partner.name} is active. Disable it in the admin first; then its tokens can be erased.")
    names = registration_names()
    held = sorted(
        names[key] for key in PartnerConsent.objects.for_partner(partner).values_list("registration", flat=True)
    )
    return Preview(
        what=f"Erase the tokens of {partner.name}",
        whom=f"{partner.name}, tenant {partner.tenant_id}",
        subject={"partner": partner.pk},
        changes=[
            Change(
                label="The partner's entries in the vault",
                now=f"kept, for {_named(held) or 'no application'}",
                then="deleted and purged, as far as the identity for erasing may",
            )
        ],
        cannot_be_undone="Erased tokens do not come back: the partner would have to consent anew.",
    )


ERASE = Kind(
    key="erase_tokens",
    rows=_rows_of_partner,
    title="Erase a partner's tokens",
    permission="consent.offboard_partner",
    preview=_see_erasing,
    refusals=(StillActive, TokenUnavailable, RemoteError),
    may_repeat=True,  # what is not gone yet is taken up again
)


# --- erasing a partner ----------------------------------------------------------------------------------------------


def _see_partner_erasure(parameters: Parameters) -> Preview:
    partner = _partner(parameters)
    if partner.is_active:
        raise CannotBeDone(f"{partner.name} is active. Offboard or disable it first; then it can be erased.")
    if Offboarding.objects.open().filter(partner=partner).exists():
        raise CannotBeDone(f"{partner.name} is being offboarded. Let that come to its end; then it can be erased.")
    found = partner_erasure.reach(partner)
    links, contacts = number_of(found.links, "link"), number_of(found.contacts, "contact")
    return Preview(
        what=f"Erase {partner.name}",
        whom=f"{partner.name}, tenant {partner.tenant_id}",
        subject={"partner": partner.pk},
        changes=[
            Change(label="Entries of the vault", now=number_of(found.tokens, "token"), then="deleted and purged"),
            Change(label="Links and contacts", now=f"{links}, {contacts}", then="removed, with all attempts"),
            Change(
                label="Names",
                now=f"the partner's and those of {number_of(found.customers, 'customer')}",
                then="taken out of what is kept; ids, times and the audit trail stay",
            ),
        ],
        cannot_be_undone="Nothing brings back what is erased.",
    )


def _erase_partner(parameters: Parameters, approved: Approval) -> Result:
    begun = partner_erasure.start(_partner(parameters), approved=approved)
    words = "The erasure has begun; the schedule does it within ten minutes."
    return Result(words=words, subject={"erasure": begun.pk})


ERASE_PARTNER = Kind(
    key="erase_partner",
    rows=_rows_of_partner,
    title="Erase a partner",
    permission=partner_erasure.ERASE,
    preview=_see_partner_erasure,
    execute=_erase_partner,
    refusals=(CannotBeDone, partner_erasure.ErasureRefused),
)


# --- removing our consent from customers ----------------------------------------------------------------------------


def removal_of(consents: Iterable[int], *, wait: float = WAIT) -> dict[str, Any]:
    """Return the parameters to remove these consents in customer tenants; ``wait`` is in seconds, for each proof."""
    return {"consents": sorted(consents), "wait": wait}


def chosen_for_removal(parameters: Parameters) -> Selection:
    """Return the selection of these parameters."""
    return Selection(consents=tuple(parameters["consents"]))


def _see_removal(parameters: Parameters) -> Preview:
    if len(parameters["consents"]) > MOST_CONSENTS:
        raise CannotBeDone(f"These are too many for one request. Choose at most {MOST_CONSENTS:,} at once.")
    chosen = chosen_for_removal(parameters)
    if (run := unfinished_direct(ConsentPlan.Purpose.REMOVE, chosen)) is not None:
        raise CannotBeDone(f"Run {run.pk} does this already.")
    consents = chosen.customer_consents()
    tenants, by_registration = counted(consents)
    if not tenants:
        raise CannotBeDone("None of these customers is there any more, or their partners are disabled.")
    names = registration_names()
    rows = consents.select_related("customer__partner").order_by("customer__company_name", "pk")
    companies = list(dict.fromkeys(str(row.customer) for row in rows))
    partners = sorted({row.customer.partner.name for row in rows})
    return Preview(
        what=f"Remove our consent from {number_of(tenants, 'customer tenant')}",
        whom=_named(partners),
        subject={"partner": rows[0].customer.partner_id} if len(partners) == 1 else {},
        changes=[
            *(
                Change(
                    label=names[key],
                    now=f"in {number_of(number, 'customer tenant')}",
                    then=f"deleted there with all grants; the proof is waited for {parameters['wait']:g} seconds each",
                )
                for key, number in sorted(by_registration.items())
            ),
            Change(label="Customers", now=_named(companies), then="what works there through it stops at once"),
        ],
        cannot_be_undone="Bringing the consent again needs a plan, and a partner's token that still works.",
    )


def _remove(parameters: Parameters, approved: Approval) -> Result:
    run, _ = start_direct(
        ConsentPlan.Purpose.REMOVE,
        chosen_for_removal(parameters),
        actor=approved.actor,
        concurrency=CONCURRENCY,
        wait=parameters["wait"],
        approved=approved,
    )
    tasks.enqueue(run)
    return Result(words="The workers remove it, customer by customer.", subject={"run": run.pk})


REMOVE = Kind(
    key="remove_consents",
    rows=lambda parameters: CustomerConsent.objects.filter(pk__in=parameters["consents"]),
    title="Remove our consent from customers",
    permission="consent.remove_customerconsent",
    preview=_see_removal,
    execute=_remove,
    refusals=(CannotBeDone, PlanRefused),
)


# --- applying a plan that removes -----------------------------------------------------------------------------------


def applying_of(plan: ConsentPlan, *, reset: bool, waves: Iterable[int], stop_share: float) -> dict[str, Any]:
    """Return the parameters to apply this plan."""
    return {"plan": plan.pk, "reset": reset, "waves": list(waves), "stop_percent": round(stop_share * 100, 2)}


def _plan(parameters: Parameters) -> ConsentPlan:
    plan = ConsentPlan.objects.select_related("registration").filter(pk=parameters["plan"]).first()
    if plan is None:
        raise CannotBeDone("There is no such plan any more.")
    return plan


def _see_applying(parameters: Parameters) -> Preview:
    plan = _plan(parameters)
    if plan.state in {ConsentPlan.State.APPLYING, ConsentPlan.State.DONE}:
        raise CannotBeDone(f"The plan says: {plan.get_state_display().lower()}. Its page shows its run.")
    numbers = counts(plan)
    registration: ApplicationRegistration = plan.registration
    acting = [one for one in ConsentPlanItem.Action if one != ConsentPlanItem.Action.NOTHING]
    changes = [
        Change(label=str(one.label), now="", then=number_of(numbers[one], "customer")) for one in acting if numbers[one]
    ]
    waves = ", ".join(map(str, parameters["waves"])) or "all at once"
    reset = "are removed and created again" if parameters["reset"] else "are left alone"
    changes.append(Change(label="Customers that need DELETE and POST", now=str(numbers["needs_reset"]), then=reset))
    changes.append(
        Change(label="Waves", now="", then=f"{waves}; it stops when more than {parameters['stop_percent']:g} % fail")
    )
    return Preview(
        what=f"Apply plan {plan.pk}, which removes our consent from customers",
        whom=str(registration),
        subject={"plan": plan.pk, "registration": plan.registration_id},
        changes=changes,
        cannot_be_undone="What works in these tenants through our application stops at once.",
    )


def _apply(parameters: Parameters, approved: Approval) -> Result:
    run, _ = start_apply(
        _plan(parameters),
        actor=approved.actor,
        reset=parameters["reset"],
        waves=tuple(parameters["waves"]),
        stop_share=parameters["stop_percent"] / 100,
        approved=approved,
    )
    tasks.enqueue(run)
    return Result(words="The workers apply it, in waves.", subject={"run": run.pk})


APPLY = Kind(
    key="apply_removing_plan",
    rows=lambda parameters: ConsentPlan.objects.filter(pk=parameters["plan"]),
    title="Apply a plan that removes our consent",
    permission="consent.apply_consentplan",
    preview=_see_applying,
    execute=_apply,
    refusals=(CannotBeDone, PlanRefused),
)


# --- taking a key out of the vault ----------------------------------------------------------------------------------


def _see_keys(parameters: Parameters) -> Preview:
    if settings.VAULT_URL.startswith("https://"):
        raise CannotBeDone("Azure Key Vault keeps its own keys; there is nothing to take out here.")
    try:
        keys = [key.hex() for key in KeyRing.open(Path(settings.VAULT_KEY_FILE)).ids]
    except VaultConfigurationError as error:
        raise CannotBeDone(f"{error}.") from None
    return Preview(
        what="Take the old keys out of the vault's key file",
        whom="The embedded vault",
        subject={},
        changes=[Change(label="Keys in the file", now=", ".join(keys), then=keys[0])],
        cannot_be_undone=(
            "Backups of the vault from before the last rotation can be read only with a copy of the old key."
        ),
    )


RETIRE_KEY = Kind(
    key="retire_vault_key",
    title="Take an old key out of the vault",
    permission="decisions.decide_keys",
    preview=_see_keys,
    refusals=(RetireRefused, VaultConfigurationError),
    may_repeat=True,
)


# --- letting an emergency stop go -----------------------------------------------------------------------------------


def resume_of(one: Containment) -> dict[str, Any]:
    """Return the parameters to resume this emergency stop."""
    return {"containment": one.pk}


def _stop(parameters: Parameters) -> Containment:
    rows = Containment.objects.select_related("registration", "partner")
    return rows.get(pk=parameters["containment"])  # no row of these is ever deleted


def _see_resuming(parameters: Parameters) -> Preview:
    one = _stop(parameters)
    if one.state != Containment.State.ON:
        raise CannotBeDone(f"{one} is not on; there is nothing to resume. Its page says how far it is.")
    older = sorted({str(each.registration) for each in containment.older_credentials(one)})
    off = sorted(str(each) for each in ApplicationRegistration.objects.filter(pk__in=one.deactivated))
    changes = [
        Change(
            label="Use of tokens",
            now=f"stopped since {one.began_at:%Y-%m-%d %H:%M} UTC: {one.reason}",
            then="let go in waves of 1, 5, 25 and so on partners; each is checked before the next one comes",
        )
    ]
    if older:
        then = "used again; a stranger who had them before the stop still has them"
        changes.append(Change(label="Credentials from before the stop", now=_named(older), then=then))
    if off:
        changes.append(Change(label="Deactivated at Microsoft", now=_named(off), then="may be activated"))
    return Preview(
        what=f"Resume: {one}",
        whom=str(one.partner or one.registration or "All partners"),
        subject=containment.subject(one),
        changes=changes,
        cannot_be_undone="What is done with the tokens of a wave is done. Stopping again takes one person.",
    )


def _resume(parameters: Parameters, approved: Approval) -> Result:
    one = _stop(parameters)
    containment.resume(one, approved=approved)
    return Result(words=f"{resuming.advance(one)}.", subject={"containment": one.pk})


RESUME = Kind(
    key="resume_containment",
    title="Let an emergency stop go",
    permission=containment.RESUME,
    preview=_see_resuming,
    rows=lambda parameters: Containment.objects.filter(pk=parameters["containment"]),
    execute=_resume,
    refusals=(CannotBeDone, containment.ResumeRefused),
    on_server=True,
)

TWO_PERSONS = TwoPersons(kinds=(OFFBOARD, FINISH, ERASE, ERASE_PARTNER, REMOVE, APPLY, RETIRE_KEY, RESUME))
