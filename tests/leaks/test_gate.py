"""The leak gate proves itself: a leak planted in any place is found there, in each form (S-37)."""

from __future__ import annotations

import base64
import html
import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from django.conf import settings as configured

from consent import clients
from consent.microsoft.entra import EntraClient
from tenants.models import PartnerTenant
from tests.leaks.conftest import Gate
from tests.leaks.sinks import PIECE, Canaries, Sinks, forms
from tests.support import builders

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.req("S-37")]


# --- the gate proves itself ----------------------------------------------------------------------------------------

PLANTED = "pLanTed-C4nary_9f3B7kQzW1xY5tR8uV2mN6sD0gH/+=&\"'<é"


@pytest.mark.parametrize(
    "written",
    [
        PLANTED,
        PLANTED[:PIECE],
        PLANTED[-PIECE:],
        quote(PLANTED, safe=""),
        quote_plus(PLANTED),
        json.dumps(PLANTED),
        html.escape(PLANTED),
        PLANTED.encode().hex(),
        PLANTED.encode().hex().upper(),
        *(base64.b64encode(b"x" * offset + PLANTED.encode() + b"yz").decode() for offset in range(3)),
        *(base64.urlsafe_b64encode(b"x" * offset + PLANTED.encode() + b"yz").decode() for offset in range(3)),
    ],
)
def test_every_form_of_a_canary_is_found(written: str) -> None:
    canaries = Canaries()
    canaries.add("planted", PLANTED)
    assert canaries.found_in({"sink": f"before {written} behind".encode()}) == ["planted in sink"]
    assert canaries.found_in({"sink": b"nothing to see"}) == []


def test_a_canary_that_is_short_is_refused() -> None:
    with pytest.raises(ValueError, match="proves nothing"):
        Canaries().add("short", "secret")
    assert all(len(form) >= PIECE for form in forms(PLANTED))


CANARY = "zzplantedcanaryzz0123456789zzplantedzz"


def plant_in_log(gate: Gate) -> None:
    logging.getLogger("consent.sign_in.flow").debug("the value is %s", CANARY)


def plant_in_library_log(gate: Gate) -> None:
    logging.getLogger("msal.application").debug("the value is %s", CANARY)


def plant_in_exception(gate: Gate) -> None:
    with pytest.raises(RuntimeError):
        EntraClient.redeem_refresh_token(
            clients.entra(gate.portal.registration, builders.guid()),  # type: ignore[arg-type]
            tenant_id=gate.portal.partner.tenant,
            refresh_token=Raising(),  # type: ignore[arg-type]
            scope="x",
        )


class Raising:
    def reveal(self) -> str:
        raise RuntimeError(f"the value is {CANARY}")


def plant_on_page_and_in_table(gate: Gate) -> None:
    PartnerTenant.objects.update(name=CANARY)
    gate.browser().get(gate.portal.link())


def plant_in_command(gate: Gate) -> None:
    PartnerTenant.objects.update(name=CANARY)
    gate.command("push_consent", gate.portal.partner.tenant_id, builders.guid())


def plant_in_audit(gate: Gate) -> None:
    from portal.audit.trail import record

    record("planted", actor=builders.ACTOR, subject={}, details={"value": CANARY})


def plant_in_mail(gate: Gate) -> None:
    logging.getLogger("consent.sign_in.flow").error("the value is %s", CANARY)


def plant_in_file(gate: Gate) -> None:
    with tempfile.NamedTemporaryFile("w", delete=False) as file:
        file.write(CANARY)


def plant_in_vault(gate: Gate) -> None:
    Path(configured.VAULT_URL, "leftover.tmp").write_text(CANARY)


def plant_in_session(gate: Gate) -> None:
    from portal.site.sessions import SessionStore

    store = SessionStore()
    store["value"] = CANARY
    store.save()


@pytest.mark.parametrize(
    ("plant", "sinks"),
    [
        (plant_in_log, {"log as JSON", "log for a console", "our own raw log"}),
        (plant_in_library_log, {"log as JSON", "log for a console"}),
        (plant_in_exception, {"exceptions"}),
        (plant_on_page_and_in_table, {"pages", "database"}),
        (plant_in_command, {"printed"}),
        (plant_in_audit, {"audit trail", "database"}),
        (plant_in_mail, {"mails"}),
        (plant_in_file, {"files"}),
        (plant_in_vault, {"files"}),
        (plant_in_session, {"sessions"}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_leak_planted_in_a_sink_is_found_there(gate: Gate, plant: Callable[[Gate], None], sinks: set[str]) -> None:
    gate.canaries.add("planted", CANARY)

    plant(gate)

    found = {hit.removeprefix("planted in ") for hit in gate.found() if hit.startswith("planted in ")}
    assert sinks <= found


def test_every_sink_has_a_planted_leak_or_is_a_database_file() -> None:
    marks = test_a_leak_planted_in_a_sink_is_found_there.pytestmark  # type: ignore[attr-defined]
    planted = set().union(*(sinks for mark in marks if mark.name == "parametrize" for _, sinks in mark.args[1]))
    assert set(Sinks(files=Path("/nonexistent"), apart_from=set()).contents()) - planted == {"database file"}
