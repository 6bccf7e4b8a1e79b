"""Run a command as ``manage.py`` would, and see what it printed."""

from __future__ import annotations

import io

from django.core.management import CommandError, call_command

from consent import clients
from consent.vault.base import SecretName, SecretVersion
from tests.support.portal import Portal


class Ran:
    """What a command answered."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


def run(name: str, *arguments: object) -> Ran:
    """Run a command as ``manage.py`` would and return its exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    try:
        call_command(name, *map(str, arguments), stdout=out, stderr=err)
    except CommandError as error:
        code = error.returncode
        err.write(str(error))
    except SystemExit as exited:
        code = int(exited.code or 0)
    return Ran(code, out.getvalue(), err.getvalue())


def secrets_of(portal: Portal) -> list[str]:
    """Return every secret that must not be printed by accident."""
    consent = portal.consent()
    stored = clients.vault().read(SecretName(consent.secret_name), SecretVersion(consent.secret_version))
    return [portal.client_secret, stored.value.reveal(), *portal.seen, *portal.sandbox.world.refresh_tokens]


def assert_silent(portal: Portal, ran: Ran) -> None:
    assert not [one for one in secrets_of(portal) if one in ran.out + ran.err]
    assert "Bearer" not in ran.out + ran.err
    assert "eyJ" not in ran.out + ran.err
