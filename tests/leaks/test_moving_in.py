"""Tokens that are imported lie nowhere but in the vault, whether they are adopted, refused or not even read."""

from __future__ import annotations

import io
import json
import secrets
import sys

import pytest

from tests.leaks.conftest import Gate
from tests.support.builders import guid
from tests.support.moving_in import Brought, bring

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow, pytest.mark.req("S-37")]


def test_an_import_leaves_no_token_anywhere(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    brought = bring(gate.portal, number=2, of_each=1)
    broken = f'{{"tenant_id": "{guid()}", "refresh_token": "1.A{secrets.token_urlsafe(900)}'
    odd = json.dumps({"tenant_id": guid(), "refresh_token": ["1.A" + secrets.token_urlsafe(900)]})
    brought.brought += [Brought("", "", "malformed", text=text) for text in (broken, odd, f"é{broken}")]
    gate.canaries.add("brought token", *(one.token for one in brought.brought if len(one.token) > 100))
    gate.canaries.add("token of a broken line", broken.rpartition('"')[2], json.loads(odd)["refresh_token"][0])
    for arguments in (("--dry-run",), ("--json",), ()):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(brought.lines())))
        gate.command("import_tokens", *arguments)
    assert "adopted" in "".join(gate.sinks.printed) or '"class": "ok"' in "".join(gate.sinks.printed)
    assert gate.found() == []
