"""Fixtures of the leak gate: a portal whose secrets are all known, and everything that it writes."""

from __future__ import annotations

import copy
import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from django.core.management import CommandError, call_command
from django.utils.log import AdminEmailHandler
from pytest_django.fixtures import Settings

from consent import views
from consent.sign_in import flow
from portal.site.logs import redact
from tests.leaks.sinks import PIECE, Canaries, RecordingBrowser, RecordingStaff, Sinks
from tests.sandbox.token_endpoint import answer_token_request
from tests.support.portal import Portal

WIRE = {
    "code": "code",
    "code_verifier": "verifier",
    "client_secret": "client secret",
    "client_assertion": "client assertion",
    "access_token": "access token",
    "refresh_token": "refresh token",
    "id_token": "ID token",
}


@dataclass(slots=True, kw_only=True)
class Gate:
    """A portal whose secrets are all known, and everything that it wrote."""

    portal: Portal
    canaries: Canaries
    sinks: Sinks

    def browser(self) -> RecordingBrowser:
        return RecordingBrowser(self.canaries, self.sinks.pages)

    def staff(self) -> RecordingStaff:
        return RecordingStaff(self.canaries, self.sinks.pages)

    def command(self, name: str, *arguments: str) -> None:
        """Run a management command and keep what it prints."""
        out, err = StringIO(), StringIO()
        try:
            call_command(name, *arguments, stdout=out, stderr=err)
        except (CommandError, SystemExit) as error:
            err.write(str(error))
        self.sinks.printed.append(out.getvalue() + err.getvalue())

    def found(self) -> list[str]:
        self.canaries.add("refresh token", *self.portal.sandbox.world.refresh_tokens)
        return self.canaries.found_in(self.sinks.contents())


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Canaries:
    """Canaries that pass between the portal and the token endpoint, read at Microsoft's end."""
    canaries = Canaries()

    def listening(world: Any, cloud: Any, tenant: str, form: Any, correlation: str) -> web.Response:
        answer = answer_token_request(world, cloud, tenant, form, correlation)
        body = json.loads(bytes(answer.body))  # type: ignore[arg-type]  # the sandbox always answers bytes
        for record in (form, body):
            for name, kind in WIRE.items():
                if isinstance(record.get(name), str) and len(record[name]) >= 2 * PIECE:
                    canaries.add(kind, record[name])
        return answer

    monkeypatch.setattr("tests.sandbox.entra.answer_token_request", listening)
    return canaries


@pytest.fixture
def gate(
    portal: Portal, wire: Canaries, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Gate]:
    made = open_gate(portal, wire, settings, tmp_path, monkeypatch)
    with made.sinks.open(), error_mail(settings):
        yield made


def open_gate(
    portal: Portal, wire: Canaries, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Gate:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(views, "_probe", flow.WriteProbe())
    wire.add("client secret", portal.client_secret)
    wire.add("key of this deployment", settings.SECRET_KEY, settings.INTEGRITY_KEY)
    key_file = Path(settings.VAULT_KEY_FILE)
    if not settings.VAULT_URL.startswith("https://"):
        lines = key_file.read_text().splitlines()
        wire.add("vault key", *(line for line in lines if line and not line.startswith("#")))
    # The key file and the vault identity's credential are where those secrets live.
    sinks = Sinks(files=tmp_path, apart_from={key_file.name, "vault-credential"})
    return Gate(portal=portal, canaries=wire, sinks=sinks)


@contextmanager
def error_mail(settings: Settings) -> Iterator[None]:
    """Django's error mail in HTML, for our own errors as well as for Django's, as an operator would switch it on.

    The report is raw, so that S-33 is what keeps it clean. The subject is Django's own and holds the path, which for a
    link is its token: a mail handler needs the redaction of messages, as every handler of ours has it.
    """
    settings.ADMINS = ["operations@vendor.example"]
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
    handler = AdminEmailHandler(include_html=True)
    handler.setLevel(logging.ERROR)
    handler.addFilter(_message_redacted)
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def _message_redacted(record: logging.LogRecord) -> logging.LogRecord:
    record = copy.copy(record)
    record.msg, record.args = redact(record.getMessage()), None
    return record
