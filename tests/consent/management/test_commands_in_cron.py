"""Commands that can be trusted in cron: a typo is no success, ``| head`` no failure, and a token in no open file."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from django.core.management import call_command, get_commands, load_command_class

from consent.models import PartnerConsent
from portal.audit.models import AuditEvent
from portal.runs.models import Run
from tenants.models import CustomerTenant, PartnerTag, PartnerTenant
from tests.support import builders, custody
from tests.support.commands import run
from tests.support.connected import two_partners
from tests.support.portal import Portal
from tests.support.source import COMMANDS, ROOT
from tests.support.staff import Staff, told

OVER_PARTNERS = ["check_tokens", "keep_alive", "sync_customers", "verify_consents", "remove_consent", "plan_consents"]
NAMES = {"$PARTNER": builders.guid(), "$CUSTOMER": builders.guid(), "$APPLICATION_ID": builders.guid()}


@pytest.fixture
def connected(portal: Portal) -> Portal:
    portal.connect()
    return portal


# --- a selection that can never match ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OVER_PARTNERS)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tag", "glod"], "No tag glod"),
        (["--partner", builders.guid()], "No active partner with tenant id"),
        (["--registration", builders.guid()], "no application registration"),
        (["--registration", "999999"], "no application registration 999999"),
    ],
    ids=["tag", "partner", "registration", "number"],
)
def test_what_does_not_exist_ends_with_2_and_is_named(
    connected: Portal, name: str, arguments: list[str], words: str
) -> None:
    PartnerTag.objects.create(name="gold")
    ran = run(name, *arguments)
    assert (ran.code, words in ran.err) == (2, True), ran.out + ran.err
    assert not Run.objects.exists()


@pytest.mark.parametrize("name", OVER_PARTNERS)
def test_what_cannot_belong_together_ends_with_2(connected: Portal, name: str) -> None:
    abroad = builders.registration(name="Panel China", cloud="china")
    partner = connected.partner.tenant_id

    def refused(*arguments: object) -> str:
        ran = run(name, *arguments)
        assert ran.code == 2, ran.out + ran.err
        return ran.err

    assert f"No partner of the cloud china: {partner}" in refused("--partner", partner, "--cloud", "china")
    assert "Panel China is registered in" in refused("--cloud", "global", "--registration", abroad.application_id)
    if name != "plan_consents":  # which says that it found no customers
        assert "Panel China is registered in" in refused("--partner", partner, "--registration", abroad.pk)


@pytest.mark.parametrize("arguments", [["--cloud", "moon"], *([f"--age={age}"] for age in ("-1", "nan", "1e300"))])
@pytest.mark.parametrize("name", OVER_PARTNERS)
def test_a_word_or_an_age_that_is_none_ends_with_2(
    name: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        load_command_class("consent", name).run_from_argv(["manage.py", name, *arguments])
    assert ended.value.code == 2
    words = "Unknown cloud; choose one of" if "--cloud" in arguments else "write hours"
    assert words in capsys.readouterr().err


# --- one that matches nothing today -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["check_tokens", "sync_customers", "verify_consents"])
@pytest.mark.parametrize("more", [(), ("--background",)], ids=["here", "background"])
def test_what_matches_nothing_today_is_said_and_is_no_failure(
    connected: Portal, name: str, more: tuple[str, ...]
) -> None:
    PartnerTag.objects.create(name="gold")

    ran = run(name, "--tag", "gold", *more)

    assert ran.code == 0
    assert "Nothing fits this selection today." in ran.out


def test_what_matches_something_is_not_called_nothing(connected: Portal) -> None:
    assert "Nothing fits" not in run("check_tokens").out


@pytest.mark.django_db(transaction=True)
def test_sync_customers_passes_over_who_never_consented_and_ends_with_0(connected: Portal) -> None:
    invited, left = builders.partner(name="Only Invited"), builders.partner(name="Left Us")
    builders.consent(left, connected.registration, state="disconnected")

    ran = run("sync_customers")

    assert ran.code == 0, ran.out
    assert ("Only Invited" in ran.out, "Left Us" in ran.out) == (False, False)
    assert CustomerTenant.objects.for_partner(connected.partner).count() == 3
    ran = run("sync_customers", "--partner", invited.tenant_id)
    assert (ran.code, "Nothing fits this selection today. Partners without a usable token" in ran.out) == (0, True)


def test_the_page_does_not_begin_a_sync_of_who_never_consented(db: None) -> None:
    staff, invited = Staff(), builders.partner()
    page = staff.choose("tenants_partnertenant", "sync_partners", invited.pk)
    assert "no usable token" in told(staff.get(page["Location"]))
    assert not Run.objects.exists()


@pytest.mark.parametrize("door", ["get_access_token", "push_consent"])
def test_an_offboarded_partner_is_not_called_one_to_enable(connected: Portal, door: str) -> None:
    customer = custody.first_customer(connected)
    connected.partner.switch = PartnerTenant.Switch.OFFBOARDED
    connected.partner.save()
    rest = ["graph"] if door == "get_access_token" else [customer.tenant_id]

    ran = run(door, connected.partner.tenant_id, *rest)

    assert ran.code == 1
    assert "is offboarded for good" in ran.err
    assert "enable" not in ran.err


# --- help -------------------------------------------------------------------------------------------------------------


def of_ours() -> list[str]:
    return sorted(path.stem for path in COMMANDS if path.stem != "__init__")


@pytest.mark.parametrize("name", of_ours())
def test_each_help_has_examples_that_are_understood(name: str) -> None:
    command: Any = load_command_class(get_commands()[name], name)
    shown = command.create_parser("manage.py", name).format_help().partition("Examples:\n")[2]
    lines = re.findall(r"^  manage\.py (.+)$", shown, re.MULTILINE)

    assert lines
    assert lines == list(command.examples)
    for line in lines:
        typed = re.split(r"\s+[#|<>]", line)[0]
        for word, value in NAMES.items():
            typed = typed.replace(word, value)
        first, *arguments = shlex.split(typed)
        assert first == name
        command.create_parser("manage.py", name).parse_args(arguments)


# --- | head -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def closed_pipe() -> Iterator[IO[str]]:
    """Return the end of a pipe that nothing reads any more, written line by line."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", buffering=1) as file:
        yield file


def test_a_run_whose_output_is_not_read_to_its_end_is_worked_to_its_end(
    connected: Portal, closed_pipe: IO[str]
) -> None:
    two_partners(connected)
    PartnerConsent.objects.update(last_try_at=None)

    call_command("check_tokens", stdout=closed_pipe, stderr=closed_pipe)  # a SystemExit would say that it failed

    finished = Run.objects.get()
    assert (finished.state, finished.items.filter(failure_class="ok").count()) == ("done", 2)
    assert PartnerConsent.objects.filter(last_try_at=None).count() == 0


@pytest.mark.parametrize(
    "arguments",
    [["run_status"], ["verify_consents", "--dry-run"], ["plan_consents", "--show", "{plan}"]],
    ids=lambda arguments: arguments[0],
)
def test_a_list_whose_reader_went_away_ends_quietly(
    connected: Portal, closed_pipe: IO[str], arguments: list[str]
) -> None:
    customer = custody.first_customer(connected)
    run("verify_consents", "--customer", customer.tenant_id)
    run("plan_consents")
    plan = str(connected.registration.plans.get().pk)

    call_command(*(one.format(plan=plan) for one in arguments), stdout=closed_pipe, stderr=closed_pipe)


def test_a_process_whose_reader_went_away_ends_with_0_and_no_noise() -> None:
    program = """
import django
django.setup()
from portal.commands import PortalCommand
class Command(PortalCommand):
    requires_system_checks = []
    def handle(self, *args, **options):
        for number in range(200_000):
            self.stdout.write(f"line {number}")
Command().run_from_argv(["manage.py", "many"])
"""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    child = subprocess.Popen(  # our own interpreter
        [sys.executable, "-c", program], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stderr is not None
    assert child.stdout.readline() == b"line 0\n"
    child.stdout.close()

    assert child.wait(30) == 0
    assert child.stderr.read() == b""
    child.stderr.close()


# --- a token in no open file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666])
def test_a_token_is_not_written_to_a_redirection_that_others_can_read(
    connected: Portal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    calls = len(connected.sandbox.world.ledger)

    code, written = redirected(connected, tmp_path, monkeypatch, with_mode(mode))

    assert (code, written) == (2, "")
    assert len(connected.sandbox.world.ledger) == calls
    assert not AuditEvent.objects.filter(action="token.handed_out").exists()


def test_a_token_is_written_to_a_redirection_that_only_we_can_read(
    connected: Portal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, written = redirected(connected, tmp_path, monkeypatch, with_mode(0o600))
    assert (code, written.count(".")) == (0, 2)


def test_a_named_pipe_that_others_can_open_is_refused_too(
    connected: Portal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    path.chmod(0o644)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with path.open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert run("get_access_token", connected.partner.tenant_id, "graph").code == 2
    assert os.read(reading, 10) == b""
    os.close(reading)


def with_mode(mode: int) -> Callable[[Path], None]:
    """Return what a shell does that has this file already, or another umask."""

    def make(path: Path) -> None:
        path.touch()
        path.chmod(mode)

    return make


def redirected(
    portal: Portal, folder: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None]
) -> tuple[int, str]:
    """Run the command with ``> file`` and return its exit code and what stands in the file."""
    path, code = folder / "token", 0
    make(path)
    with path.open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        try:
            call_command("get_access_token", portal.partner.tenant_id, "graph")
        except Exception as error:  # noqa: BLE001  # whatever it is, it carries the exit code
            code = int(getattr(error, "returncode", 1))
        monkeypatch.undo()
    return code, path.read_text()
