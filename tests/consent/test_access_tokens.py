"""The door for other programs: one function, and a page whose examples run."""

from __future__ import annotations

import re
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest
import responses
from django.core.management import get_commands, load_command_class

from consent import access_tokens
from consent.access_tokens import UnknownTenant, get_access_token
from consent.tokens.custody import TokenUnavailable
from portal.audit.models import AuditEvent
from portal.microsoft import errors
from portal.microsoft.identifiers import TenantId
from tenants.models import PartnerTenant
from tests.sandbox.scenarios import application_id
from tests.sandbox.world import PARTNER_API, Refusal
from tests.support import builders, custody
from tests.support.custody import redemptions
from tests.support.portal import Portal
from tests.support.source import ROOT

PAGE = (ROOT / "docs" / "access-tokens.md").read_text()
PARTNER, CUSTOMER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
EXAMPLES = dict(re.findall(r"^### (.+?)\n\n```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = re.findall(r"^    \S*python manage\.py get_access_token (.+)$", PAGE, re.MULTILINE)


@pytest.fixture
def connected(portal: Portal) -> Portal:
    portal.connect()
    return portal


def run_example(portal: Portal, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run an example as it stands on the page, but for whose tenant it names and where Microsoft is."""
    cloud = portal.sandbox.clouds["global"]
    customer = custody.first_customer(portal)
    custody.consent_directly(portal, customer, {"User.Read.All", "Directory.Read.All"})
    for there, here in (
        ("https://graph.microsoft.com", cloud.graph),
        ("https://api.partnercenter.microsoft.com", cloud.partner_center),
        ("https://api.partner.microsoft.com", str(cloud.partner_api)),
        (PARTNER, portal.partner.tenant_id),
        (CUSTOMER, customer.tenant_id),
    ):
        text = text.replace(there, here)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(portal.sandbox.ca_file))
    look_up = socket.getaddrinfo  # names below localhost are this machine, as browsers know
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **more: look_up("127.0.0.1" if str(host).endswith(".localhost") else host, *rest, **more),
    )
    exec(compile(text, "docs/access-tokens.md", "exec"), {"__name__": "example"})  # noqa: S102  # our own page


@pytest.mark.parametrize(
    ("title", "printed"),
    [
        ("Microsoft Graph, in the partner's tenant", r"\d+ GDAP relationships"),
        ("Microsoft Graph, in a customer's tenant", r"\w.+"),
        ("Partner Center", r"[1-9]\d* customers"),
    ],
)
def test_the_pages_examples_run(
    connected: Portal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], title: str, printed: str
) -> None:
    run_example(connected, EXAMPLES[title], monkeypatch)

    assert re.fullmatch(printed, capsys.readouterr().out.strip())
    event = AuditEvent.objects.get(action="token.handed_out")
    assert event.details["to"] == "a program"
    assert event.actor.startswith("python (")


def test_the_pages_example_for_the_partner_api_sends_a_token_for_it(
    connected: Portal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host = str(connected.sandbox.clouds["global"].partner_api)
    world = connected.sandbox.world
    world.applications[application_id()].permissions[PARTNER_API] = {"user_impersonation"}
    tenant = world.tenants[connected.partner.tenant_id]
    tenant.add_principal(PARTNER_API, "Partner API")
    tenant.grant(application_id(), PARTNER_API, {"user_impersonation"})
    with responses.RequestsMock() as wire:  # the sandbox plays no Partner API
        wire.add_passthru(re.compile(rf"(?!{re.escape(host)}).*"))
        wire.get(f"{host}/v1.0/engagements/referrals", json={"value": [{}, {}]})
        run_example(connected, EXAMPLES["Partner API"], monkeypatch)
        sent = wire.calls[0].request.headers["Authorization"]

    assert capsys.readouterr().out.strip() == "2 referrals"
    assert sent.startswith("Bearer ey")
    assert AuditEvent.objects.get(action="token.handed_out").details["audience"] == "partner_api"


def test_there_is_an_example_for_each_service_and_the_command_lines_are_understood() -> None:
    assert len(EXAMPLES) == 4
    assert len(COMMANDS) == 4
    command = load_command_class(get_commands()["get_access_token"], "get_access_token")
    for line in COMMANDS:
        arguments = shlex.split(line.partition("|")[0])
        assert command.create_parser("manage.py", "get_access_token").parse_args(arguments).partner == PARTNER
    table = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    assert {"partner_center", "graph", "partner_api", "azure_management"} <= set(table)


def test_the_page_says_what_each_failure_means() -> None:
    named = set(re.findall(r"`([A-Z]\w+)`", PAGE.partition("## What each failure means")[2]))
    family = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.RemoteError)
    }
    left_out = {"RemoteError", "RetryableError", "Conflict", "AlreadyExists"}  # bases, and what a token cannot meet
    assert family - left_out <= named
    assert {
        "TokenUnavailable",
        "IdentityMismatch",
        "UnknownTenant",
        "UnknownRegistration",
        "SeveralRegistrations",
    } <= named
    assert "ValueError" in named


@pytest.mark.req("S-58")
def test_no_token_leaves_without_a_line_in_the_audit_trail(connected: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr(access_tokens, "record", full)
    with pytest.raises(OSError, match="no space"):
        get_access_token(connected.partner.tenant_id, "graph")


def test_asking_again_costs_nothing_unless_a_fresh_one_is_wanted(connected: Portal) -> None:
    partner = connected.partner.tenant_id
    first, before = get_access_token(partner, "graph"), len(redemptions(connected))

    assert get_access_token(partner.upper(), "graph").same_as(first)
    assert len(redemptions(connected)) == before
    assert not get_access_token(partner, "graph", fresh=True).same_as(first)


def test_what_cannot_be_asked_is_refused_before_any_call(connected: Portal) -> None:
    partner, calls = connected.partner.tenant_id, len(connected.sandbox.world.ledger)
    other = builders.customer(builders.partner())

    with pytest.raises(ValueError, match="contoso"):
        get_access_token(partner, "contoso")
    with pytest.raises(ValueError, match=r"GUID|tenant id"):
        get_access_token("contoso", "graph")
    with pytest.raises(UnknownTenant, match="No partner"):
        get_access_token(TenantId(builders.guid()), "graph")
    with pytest.raises(UnknownTenant, match="no such customer"):
        get_access_token(partner, "graph", customer=other.tenant_id)
    with pytest.raises(TokenUnavailable, match="not consented yet"):
        get_access_token(other.partner.tenant_id, "graph")
    PartnerTenant.objects.update(switch="disabled")
    with pytest.raises(TokenUnavailable, match="disabled"):
        get_access_token(partner, "graph")

    assert len(connected.sandbox.world.ledger) == calls
    assert not AuditEvent.objects.filter(action="token.handed_out").exists()


@pytest.mark.parametrize("code", [700082, 50076, 7000215, 50196])
def test_a_refusal_is_raised_as_the_page_says_and_changes_no_state(connected: Portal, code: int) -> None:
    connected.sandbox.world.refusals.append(Refusal(code=code))

    with pytest.raises(errors.RemoteError) as caught:
        get_access_token(connected.partner.tenant_id, "partner_center", fresh=True)

    assert type(caught.value).__name__ in PAGE
    assert caught.value.correlation_id
    assert connected.consent().state == "connected"


def test_the_page_is_linked() -> None:
    assert "(docs/access-tokens.md)" in (Path(ROOT) / "README.md").read_text()
