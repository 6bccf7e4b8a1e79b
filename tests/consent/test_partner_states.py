"""One truth about each partner: every list, filter, count, export, page and command says the same of it."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone

from consent import clients
from consent.invitations import campaigns, links
from consent.models import ApplicationRegistration, ConsentLink, PartnerConsent
from consent.selection import Selection
from consent.states import ACTIVE_STATES, STANDINGS, State, state_of
from tenants.models import PartnerTenant
from tests.support import builders
from tests.support.portal import Portal
from tests.support.staff import Staff

pytestmark = pytest.mark.django_db

# (state of the consent, whether it has a problem); "" is none at all, "begun" one without a token.
CONSENTS = ["", "begun", *(f"{state}{bad}" for state in PartnerConsent.State.values for bad in ("", "!"))]
LINKS = ["", "open", "expired", "revoked", "closed"]
SWITCHES = ["on", "offboarding", "disabled", "disabled offboarding", "offboarded"]
GONE = {"revoked", "revoked!"}


def expected(consents: list[str], retired: str, link: str, switch: str) -> str:
    """The rule in words of its own, without a query."""
    if switch in {"offboarded", "offboarding"}:
        return switch
    if switch.startswith("disabled"):
        return "disabled"
    counted = [one for one in consents if one not in {"", "begun"} and one not in GONE]
    if any(one != "connected" for one in counted):
        return "attention"
    if counted:
        return "connected"
    had_token = any(one not in {"", "begun"} for one in [*consents, retired])
    if had_token and link != "open":
        return "left"
    return "invited" if link else "new"


def combinations() -> Iterator[tuple[list[str], str, str, str]]:
    """Each consent beside each other one, with each link and switch; and consents of a retired application."""
    for link, switch in itertools.product(LINKS, SWITCHES):
        for one in CONSENTS:
            yield [one, ""], "", link, switch
            yield ["", ""], one, link, switch
        for pair in itertools.combinations_with_replacement(["connected", "connected!", "expired", "revoked"], 2):
            yield list(pair), "", link, switch


def consent(partner: PartnerTenant, by: ApplicationRegistration, word: str, now: datetime) -> Iterator[PartnerConsent]:
    if not word:
        return
    state = "needs_consent" if word == "begun" else word.removesuffix("!")
    name = hashlib.sha256(f"{partner.pk} {by.pk}".encode()).hexdigest()[:32]
    yield PartnerConsent(
        partner=partner,
        registration=by,
        state=state,
        consented_at=now,
        pinned_oid=builders.guid(),
        generation=0 if word == "begun" else 1,
        secret_name=f"rt-{name}",
        secret_version=name,
        fingerprint=name[:16],
        stored_at=None if word == "begun" else now,
        last_success_at=now,
        mfa="missing" if state == "mfa_missing" else "proven",
        last_problem="not_permitted" if word.endswith("!") else "",
        last_owner="partner" if word.endswith("!") else "",
    )


@pytest.fixture
def partners(portal: Portal) -> dict[str, str]:
    """Every combination: tenant id and the state that it must have."""
    first, second = builders.registration(name="First"), builders.registration(name="Second")
    retired = builders.registration(name="Old", state="retired")
    now = timezone.now()
    clients.vault()  # made before the rows: a database that names tokens refuses a vault that is missing
    found, tenants, consents, issued = {portal.partner.tenant_id: str(State.NEW)}, [], [], []
    for number, (words, old, link, switch) in enumerate(combinations()):
        tenant = PartnerTenant(name=f"P{number:05}", tenant_id=builders.guid())
        tenant.switch = switch.split()[0] if switch != "offboarding" else "on"
        tenant.offboarding_since = now if "offboarding" in switch else None
        tenants.append((tenant, words, old, link))
        found[tenant.tenant_id] = expected(words, old, link, switch)
    PartnerTenant.objects.bulk_create([tenant for tenant, *_ in tenants])
    for tenant, words, old, link in tenants:
        for by, word in ((first, words[0]), (second, words[1]), (retired, old)):
            consents += list(consent(tenant, by, word, now))
        if link:
            issued.append(
                ConsentLink(
                    partner=tenant,
                    registration=first,
                    token_hash=hashlib.sha256(tenant.tenant_id.encode()).hexdigest(),
                    expires_at=now + timedelta(days=1),
                    revoked_at=now if link == "revoked" else None,
                    closed_at=now if link == "closed" else None,
                )
            )
    PartnerConsent.objects.bulk_create(consents)
    ConsentLink.objects.bulk_create(issued)
    ConsentLink.objects.update(created_at=now - timedelta(days=1))
    over = [tenant.pk for tenant, _, _, link in tenants if link == "expired"]
    ConsentLink.objects.filter(partner__in=over).update(expires_at=now - timedelta(hours=1))
    return found


def exported(staff: Staff, model: str) -> list[dict[str, str]]:
    address = reverse(f"admin:{model}_changelist")
    page: Any = staff.post(address, {"action": "export_csv", "_selected_action": [1], "select_across": 1, "index": 0})
    text = b"".join(page.streaming_content).decode("utf-8-sig")
    return list(csv.DictReader(StringIO(text)))


def badges(page: Any) -> list[str]:
    """Return the words of the badges on a page, in its order."""
    return re.findall(r'<span class="badge tone-[a-z]+">([^<]+)</span>', page.content.decode())


def total(staff: Staff, address: str) -> int:
    count: int = staff.get(address).context["cl"].result_count
    return count


def test_list_filter_count_export_campaign_command_and_page_say_the_same(partners: dict[str, str]) -> None:
    staff = Staff()
    numbers = Counter(partners.values())
    assert set(numbers) == set(State.values), "each state is there"

    assert {row["Tenant id"]: row["State"] for row in exported(staff, "tenants_partnertenant")} == {
        tenant: State(word).label for tenant, word in partners.items()
    }

    address = reverse("admin:tenants_partnertenant_changelist")
    for state in State:
        shown = staff.get(f"{address}?state={state.value}")
        assert shown.context["cl"].result_count == numbers[state]
        for partner in shown.context["cl"].result_list:
            assert partners[partner.tenant_id] == state
        assert badges(shown).count(state.label) == len(shown.context["cl"].result_list)

    [panel] = [one for one in staff.get(reverse("admin:index")).context["panels"] if one.title == "Partners"]
    assert {figure.label: figure.value for figure in panel.figures} == {one.label: f"{numbers[one]:,}" for one in State}
    for figure in panel.figures:
        assert total(staff, figure.link) == int(str(figure.value).replace(",", ""))

    for state in ACTIVE_STATES:
        wanted = {tenant for tenant, stands in partners.items() if stands == state}
        matching = campaigns.matching(ApplicationRegistration.objects.get(name="First"), states=[state])
        assert set(matching.values_list("tenant_id", flat=True)) == wanted
        assert set(Selection(state=(state.value,)).partners().values_list("tenant_id", flat=True)) == wanted

    names = dict(PartnerTenant.objects.values_list("name", "tenant_id"))
    for state in (State.CONNECTED, State.ATTENTION):
        out = StringIO()
        call_command("check_tokens", "--state", state.value, "--dry-run", "--json", stdout=out)
        checked = {names[json.loads(line)["label"].split(" (")[0]] for line in out.getvalue().splitlines()[:-1]}
        assert checked
        assert {partners[tenant] for tenant in checked} == {state}

    for partner in PartnerTenant.objects.order_by("?")[:20]:
        assert state_of(partner) == partners[partner.tenant_id]
        page = staff.get(reverse("admin:tenants_partnertenant_change", args=[partner.pk]))
        assert State(partners[partner.tenant_id]).label in badges(page)


def test_a_token_never_looks_better_than_its_partner(partners: dict[str, str]) -> None:
    staff = Staff()
    rows = exported(staff, "consent_partnerconsent")
    address = reverse("admin:consent_partnerconsent_changelist")
    for row in rows:
        partner, stands = (
            partners[row["Partner tenant id"]],
            {one.label: one.value for one in STANDINGS}[row["Standing"]],
        )
        if partner in {"disabled", "offboarding", "offboarded"}:
            assert stands == partner
        elif stands not in {"connected", "revoked"} and row["Registration name"] != "Old":
            assert partner == "attention" or row["Stored at"] == "", row
    numbers = Counter(row["Standing"] for row in rows)
    for one in STANDINGS:
        shown = staff.get(f"{address}?state={one.value}")
        assert shown.context["cl"].result_count == numbers[str(one.label)]
        assert badges(shown).count(str(one.label)) == len(shown.context["cl"].result_list)


def test_whoever_needs_attention_is_among_those_who_must_act(partners: dict[str, str]) -> None:
    wanting = set(PartnerConsent.objects.wanting_action().values_list("partner__tenant_id", flat=True))
    assert {tenant for tenant, state in partners.items() if state == "attention"} == wanting


def test_a_partner_is_new_until_it_has_a_link() -> None:
    """As staff see it: the badge of the list."""
    staff, partner, registration = Staff(), builders.partner(), builders.registration()
    address = reverse("admin:tenants_partnertenant_changelist")

    assert badges(staff.get(address)) == ["New"]
    links.issue(partner, registration, actor=builders.ACTOR)
    assert badges(staff.get(address)) == ["Invited"]
    PartnerTenant.objects.update(offboarding_since=timezone.now())
    assert badges(staff.get(address)) == ["Being offboarded"]
    PartnerTenant.objects.update(switch="disabled")
    assert badges(staff.get(address)) == ["Disabled"]
