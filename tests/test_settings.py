"""Bad settings stop the start with one line that names the variable and says what to do; nothing is half done."""

from __future__ import annotations

import os
import re
import runpy
import secrets
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command, execute_from_command_line
from django.db import connection
from django.test import Client
from pytest_django.fixtures import Settings

from consent import clients
from consent.models import PartnerConsent
from portal.checks import is_weak, refuse_error_reporters
from portal.microsoft.clouds import local_clouds
from tests.support import builders
from tests.support.manage import GOOD, SECRET, assert_one_line, manage
from tests.support.portal import Portal
from tests.support.source import ROOT, variables


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run the settings module as a start does, with these variables and no others."""

    def run(**changes: str) -> dict[str, Any]:
        for name in variables():
            # Empty, not absent: a developer's own .env must not decide.
            monkeypatch.setenv(name, (GOOD | changes).get(name, ""))
            monkeypatch.delenv(f"{name}_FILE", raising=False)
        for name in set(changes) - set(variables()):
            monkeypatch.setenv(name, changes[name])
        return runpy.run_path(str(ROOT / "portal/settings.py"))

    return run


BAD: dict[str, tuple[dict[str, str], str]] = {
    "no SECRET_KEY": ({"SECRET_KEY": ""}, "SECRET_KEY"),
    "no INTEGRITY_KEY": ({"INTEGRITY_KEY": ""}, "INTEGRITY_KEY"),
    "no PUBLIC_BASE_URL": ({"PUBLIC_BASE_URL": ""}, "PUBLIC_BASE_URL"),
    "blank SECRET_KEY": ({"SECRET_KEY": "   "}, "SECRET_KEY"),
    "misspelt DEBUG": ({"DEBUG": "ture"}, "DEBUG must be true or false"),
    "DEBUG as a number": ({"DEBUG": "2"}, "DEBUG must be true or false"),
    "misspelt BEHIND_TLS_PROXY": ({"BEHIND_TLS_PROXY": "ja"}, "BEHIND_TLS_PROXY"),
    "misspelt SERVE_STATIC_FROM_SOURCE": ({"SERVE_STATIC_FROM_SOURCE": "tru"}, "SERVE_STATIC_FROM_SOURCE"),
    "a reference": ({"SECRET_KEY": "$OTHER_VARIABLE"}, "SECRET_KEY begins with $"),
    "a reference in a flag": ({"DEBUG": "$DEBUG_OF_OTHERS"}, "DEBUG begins with $"),
    "a role that is no GUID": ({"GDAP_ACCEPTED_ROLES": "Global Administrator"}, "GDAP_ACCEPTED_ROLES takes GUIDs"),
    "http": ({"PUBLIC_BASE_URL": "http://portal.example.com"}, "PUBLIC_BASE_URL must look like https"),
    "http on localhost without a sandbox": ({"PUBLIC_BASE_URL": "http://portal.localhost:8000"}, "PUBLIC_BASE_URL"),
    "http elsewhere with a sandbox": (
        {"PUBLIC_BASE_URL": "http://portal.example.com", "TEST_ENDPOINTS": "1", "TEST_CA_FILE": "/ca.pem"},
        "PUBLIC_BASE_URL",
    ),
    "a host without scheme": ({"PUBLIC_BASE_URL": "portal.example.com"}, "PUBLIC_BASE_URL"),
    "any host": ({"ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS"),
    "any host among others": ({"ALLOWED_HOSTS": "portal.example.com, *"}, "ALLOWED_HOSTS"),
    "a sandbox without its CA": ({"TEST_ENDPOINTS": "8443"}, "TEST_CA_FILE"),
    "a port that is none": ({"TEST_ENDPOINTS": "65536", "TEST_CA_FILE": "/ca.pem"}, "TEST_ENDPOINTS"),
    "a port that is a word": ({"TEST_ENDPOINTS": "true", "TEST_CA_FILE": "/ca.pem"}, "TEST_ENDPOINTS"),
    "a reader without a tenant": ({"READER_CLIENT_ID": "c"}, "READER_CLIENT_ID and READER_TENANT_ID belong together"),
    "another reader without a client": ({"MORE_READERS": "t1,c1;t2"}, "MORE_READERS must be TENANT_ID,CLIENT_ID"),
    "two readers of a tenant": (
        {"READER_TENANT_ID": "T1", "READER_CLIENT_ID": "c1", "MORE_READERS": "t1,c2"},
        "A tenant has one reader",
    ),
    "proxies without number": ({"TRUSTED_PROXIES": "yes"}, "TRUSTED_PROXIES"),
    "a negative number": ({"TRUSTED_PROXIES": "-1"}, "TRUSTED_PROXIES"),
    "too many proxies": ({"TRUSTED_PROXIES": "11"}, "TRUSTED_PROXIES"),
    "a link that lives too long": ({"LINK_LIFETIME_DAYS": "91"}, "LINK_LIFETIME_DAYS"),
    "a link that never lives": ({"LINK_LIFETIME_DAYS": "0"}, "LINK_LIFETIME_DAYS"),
    "two sign-in services": (
        {"STAFF_OIDC_TENANT": "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "STAFF_OIDC_ISSUER": "https://id.example.com"},
        "STAFF_OIDC_TENANT or STAFF_OIDC_ISSUER",
    ),
    "a tenant that is no GUID": ({"STAFF_OIDC_TENANT": "vendor.example"}, "STAFF_OIDC_TENANT takes"),
    "a sign-in service over http": ({"STAFF_OIDC_ISSUER": "http://id.example.com"}, "STAFF_OIDC_ISSUER must look"),
    "a sign-in service without a credential": (
        {"STAFF_OIDC_ISSUER": "https://id.example.com", "STAFF_OIDC_CLIENT_ID": "portal"},
        "STAFF_OIDC_CREDENTIAL",
    ),
    "a sign-in service without roles": (
        {
            "STAFF_OIDC_ISSUER": "https://id.example.com",
            "STAFF_OIDC_CLIENT_ID": "portal",
            "STAFF_OIDC_CREDENTIAL": "x",
            "STAFF_OIDC_ROLES": "Operator",
        },
        "STAFF_OIDC_ROLES takes pairs",
    ),
    "a claim without a value": ({"STAFF_OIDC_DEMAND_MFA": "amr"}, "STAFF_OIDC_DEMAND_MFA takes"),
    "syslog without a port": ({"AUDIT_ANCHOR_SYSLOG": "tls://log.example.com"}, "AUDIT_ANCHOR_SYSLOG must look like"),
    "anchors over http": ({"AUDIT_ANCHOR_URL": "http://log.example.com/"}, "AUDIT_ANCHOR_URL must be an https"),
    "a host name as an address": ({"OUTGOING_ADDRESSES": "vendor.example"}, "OUTGOING_ADDRESSES takes IP addresses"),
    "an address in a network": (
        {"OUTGOING_ADDRESSES": "203.0.113.7/28"},
        "OUTGOING_ADDRESSES takes IP addresses",
    ),
    "a database of another kind": ({"DATABASE_URL": "mysql://a:b@c/d"}, "DATABASE_URL"),
    "a database that is a word": ({"DATABASE_URL": "production"}, "DATABASE_URL"),
    "a database without name": ({"DATABASE_URL": "postgres://portal@db.example"}, "DATABASE_URL"),
    "a database with a wrong port": ({"DATABASE_URL": "postgres://portal@db.example:x/portal"}, "DATABASE_URL"),
    "a file that is not there": ({"SECRET_KEY_FILE": "/nonexistent/key"}, "SECRET_KEY_FILE names /nonexistent/key"),
    "a file that is a folder": ({"SECRET_KEY_FILE": "/"}, "SECRET_KEY_FILE"),
    "a cloud that is closed": ({"VAULT_CLOUD": "germany"}, "VAULT_CLOUD: Microsoft Cloud Germany was closed on 29 Oct"),
    "a cloud that is none": (
        {"VAULT_CLOUD": "mars"},
        "VAULT_CLOUD: Unknown cloud; choose one of global, usgov",
    ),
    "an identity that is none": ({"VAULT_IDENTITY": "default"}, "VAULT_IDENTITY must be one of managed-identity, "),
    "a protocol that is none": ({"EMAIL_TLS": "ssl"}, "EMAIL_TLS must be one of"),
    "a format that is none": ({"LOG_FORMAT": "xml"}, "LOG_FORMAT must be one of"),
    "a level that is none": ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL must be one of"),
}


@pytest.mark.req("S-27")
@pytest.mark.req("S-28")
@pytest.mark.parametrize(("changes", "told"), BAD.values(), ids=BAD)
def test_a_bad_variable_stops_the_start_with_its_name(
    load: Callable[..., dict[str, Any]], changes: dict[str, str], told: str
) -> None:
    with pytest.raises(ImproperlyConfigured) as stopped:
        load(**changes)
    text = str(stopped.value)
    assert told in text
    assert "\n" not in text
    assert SECRET not in text
    assert stopped.value.__cause__ is None


def test_good_settings_load_and_are_closed_by_default(load: Callable[..., dict[str, Any]]) -> None:
    loaded = load()
    assert loaded["DEBUG"] is False
    assert loaded["ALLOWED_HOSTS"] == ["portal.example.com"]
    assert loaded["TEST_ENDPOINTS"] == 0
    assert loaded["TRUSTED_PROXIES"] == 0
    assert loaded["USE_X_FORWARDED_HOST"] is False
    assert "SECURE_PROXY_SSL_HEADER" not in loaded
    assert all(loaded[name] is True for name in ("SECURE_SSL_REDIRECT", "SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE"))
    assert all("localhost" not in host for cloud in loaded["CLOUDS"].values() for host in cloud.hosts())
    assert not loaded.get("CSRF_TRUSTED_ORIGINS")  # S-21: the sign-in host least of all


@pytest.mark.parametrize(("text", "value"), [("true", True), ("ON", True), ("1", True), ("No", False), ("0", False)])
def test_a_flag_knows_the_usual_words(load: Callable[..., dict[str, Any]], text: str, value: bool) -> None:
    assert load(DEBUG=text)["DEBUG"] is value


def test_each_home_tenant_has_its_reader(load: Callable[..., dict[str, Any]]) -> None:
    known = load(READER_TENANT_ID="T1", READER_CLIENT_ID="c1", MORE_READERS="t2, c2, /run/c2.pem; t3,c3;")["READERS"]
    assert known == {"t1": ("c1", ""), "t2": ("c2", "/run/c2.pem"), "t3": ("c3", "")}
    assert load()["READERS"] == {}


def test_a_value_may_lie_in_a_file_and_begin_with_a_dollar(load: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("$ecret-äöü" * 6 + "\n")
    assert load(SECRET_KEY="", SECRET_KEY_FILE=str(file))["SECRET_KEY"] == "$ecret-äöü" * 6


def test_a_file_that_is_no_text_is_refused(load: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ImproperlyConfigured, match="it is no text"):
        load(SECRET_KEY_FILE=str(file))


def test_a_password_of_the_database_is_in_no_message(load: Callable[..., dict[str, Any]]) -> None:
    with pytest.raises(ImproperlyConfigured) as stopped:
        load(DATABASE_URL=f"oracle://portal:{SECRET}@db.example/portal")
    assert SECRET not in str(stopped.value)


# --- as an operator sees it ----------------------------------------------------------------------------------------


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"SECRET_KEY": ""}, "Set SECRET_KEY"), ({"DEBUG": "ture"}, "DEBUG must be true or false")],
    ids=["missing", "misspelt"],
)
def test_manage_says_one_line_about_a_bad_variable(changes: dict[str, str], told: str) -> None:
    assert_one_line(manage("check", **changes), told)


def test_a_command_says_one_line_about_a_database_that_does_not_answer(tmp_path: Path) -> None:
    ended = manage("check_tokens", DATABASE_URL=f"postgres://portal:{SECRET}@127.0.0.1:{closed_port()}/portal")
    assert_one_line(ended, "DATABASE_URL", 3)


CLOSED = "closed on 29 October 2021; its partners moved to Global."


def test_a_command_refuses_a_closed_cloud_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    ended = manage("check_tokens", "--cloud", "germany")
    assert (ended.returncode, CLOSED in ended.stderr) == (2, True)
    for command in ("check_tokens", "plan_consents", "verify_consents"):  # as manage.py does, without its start
        for cloud, told in (("germany", CLOSED), ("mars", "choose one of global, usgov, china.")):
            with pytest.raises(SystemExit) as stopped:
                execute_from_command_line(["manage.py", command, "--cloud", cloud])
            assert stopped.value.code == 2
            assert told in capsys.readouterr().err


def make_check(**changes: str) -> subprocess.CompletedProcess[str]:
    """Run what ``make check`` runs, with an operator's settings."""
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe
    (line,) = recipe[1].splitlines()
    program, *arguments = line.removeprefix("\t@$(BIN)/python ").split()
    assert program == "manage.py"
    return manage(*arguments, **changes)


@pytest.mark.req("S-71")
def test_make_check_fails_for_the_operators_own_settings(tmp_path: Path) -> None:
    """Each is an error, so that each alone fails; all at once, because each run is a start of its own."""
    wrong = {
        "portal.E001": {"TEST_ENDPOINTS": "9443", "TEST_CA_FILE": "/nowhere/ca.pem"},
        "portal.E003": {"INTEGRITY_KEY": "a" * 40},
        "portal.E005": {"DEBUG": "true"},
        "portal.E006": {"SECRET_KEY": "short"},
        "portal.E007": {"ALLOWED_HOSTS": ".example.com"},
        "portal.E008": {"SECURE_HSTS_SECONDS": "0"},
    }
    changes = {name: value for each in wrong.values() for name, value in each.items()}
    ended = make_check(DATABASE_URL=f"sqlite:///{tmp_path}/db.sqlite3", **changes)
    assert ended.returncode == 1
    errors = ended.stderr.partition("WARNINGS:")[0]
    told = {one: text for one in wrong for text in errors.split("\n\n?: ") if f"({one})" in text}
    assert told.keys() == wrong.keys(), errors
    for one, text in told.items():
        assert "HINT: " in text, one
        assert "docs/operations.md#deploy-checks" in text, one


@pytest.mark.req("S-71")
def test_make_check_needs_the_settings_to_be_there() -> None:
    assert_one_line(make_check(SECRET_KEY=""), "Set SECRET_KEY")


@pytest.mark.req("S-71")
@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor != "sqlite", reason="the database of the tests is copied")
def test_make_check_says_run_migrate_and_is_content_afterwards(tmp_path: Path) -> None:
    """With a copy of the tests' database; that ``migrate`` makes one like it is where the browser's portals begin."""
    own = {"DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3", "VAULT_URL": "https://vendor.vault.azure.net"}
    ended = make_check(**own)
    assert ended.returncode == 1
    assert "portal.E009" in ended.stderr
    assert "run migrate: manage.py migrate" in ended.stderr
    assert "DATABASE_URL" not in ended.stderr
    with (
        closing(sqlite3.connect(connection.settings_dict["NAME"])) as ours,
        closing(sqlite3.connect(tmp_path / "db.sqlite3")) as copy,
    ):
        ours.backup(copy)
    ended = make_check(**own)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "no issues" in ended.stdout


@pytest.mark.req("S-71")
@pytest.mark.django_db
@pytest.mark.parametrize(("partners", "told"), [(1, "1 partner is in"), (2, "2 partners are in")])
def test_mails_on_a_console_are_refused_while_partners_wait_for_them(
    settings: Settings, partners: int, told: str
) -> None:
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.console.EmailBackend"}}

    def found() -> list[checks.CheckMessage]:
        all_ = checks.run_checks(include_deployment_checks=True, databases=["default"])
        return [one for one in all_ if one.id == "consent.E001"]

    assert found() == []
    for _ in range(partners):
        builders.partner()
    (error,) = found()
    assert told in error.msg
    assert "docs/operations.md#deploy-checks" in str(error.hint)
    assert isinstance(error, checks.Error)
    settings.MAILERS = {}
    assert found() == []


@pytest.mark.parametrize("size", [32, 48, 64])
def test_a_random_key_is_never_called_weak(size: int) -> None:
    for _ in range(300):
        assert not is_weak(secrets.token_hex(size // 2), 32)
        assert not is_weak(secrets.token_urlsafe(size), 32)


def test_each_deploy_check_has_its_line_in_the_docs() -> None:
    page = (ROOT / "docs/operations.md").read_text().partition("## Deploy checks")[2].partition("\n## ")[0]
    source = "".join(
        (ROOT / name).read_text()
        for name in ("portal/checks.py", "portal/decisions/checks.py", "portal/staff/checks.py", "consent/checks.py")
    )
    ids = {f"portal.E{int(number):03}" for number in re.findall(r"_error\(\s*(\d+),", source)}
    ids |= set(re.findall(r'id="([a-z]+\.[EW]\d{3})"', source))
    assert len(ids) == 17
    assert sorted(re.findall(r"^\| `([a-z]+\.[EW]\d{3})` \|", page, re.MULTILINE)) == sorted(ids)


@pytest.mark.req("S-71")
def test_the_shipped_production_settings_pass_their_own_deploy_check() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.deploy_check"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "System check identified no issues" in ended.stdout


# --- commands beside something that is missing -----------------------------------------------------------------------


def run_command(name: str, *arguments: str) -> tuple[str, int]:
    """Run a command and return what it says to an operator, with its exit code."""
    out, err = StringIO(), StringIO()
    try:
        call_command(name, *arguments, stdout=out, stderr=err)
    except CommandError as error:
        return str(error), error.returncode
    except SystemExit as ended:
        return out.getvalue() + err.getvalue(), int(str(ended.code))
    except ImproperlyConfigured as error:  # manage.py prints it as one line
        return str(error), 1
    return out.getvalue() + err.getvalue(), 0


@pytest.fixture
def connected(portal: Portal) -> Portal:
    portal.connect()
    clients.reset()  # the vault is opened anew
    return portal


def test_a_sandbox_that_is_not_running_is_named_and_changes_no_state(connected: Portal, settings: Settings) -> None:
    settings.TEST_ENDPOINTS = closed_port()
    settings.CLOUDS = local_clouds(settings.TEST_ENDPOINTS)
    before = PartnerConsent.objects.values().get()

    text, code = run_command("check_tokens")

    assert code == 3
    assert "Traceback" not in text
    assert f":{settings.TEST_ENDPOINTS} was refused." in text
    assert "No partner's state was changed" in text
    after = PartnerConsent.objects.values().get()
    assert {**after, "last_try_at": None} == {**before, "last_try_at": None}


def test_a_ca_file_that_is_missing_is_named_with_what_to_do(connected: Portal, settings: Settings) -> None:
    settings.OUTGOING_CA_FILE = "/nonexistent/ca.pem"
    text, code = run_command("check_tokens")
    assert code != 0
    assert "TEST_CA_FILE names /nonexistent/ca.pem" in text
    assert "start the sandbox first" in text
    assert "\n" not in text.strip()


def test_a_missing_vault_key_beside_data_is_named_and_no_new_one_is_made(connected: Portal, settings: Settings) -> None:
    Path(settings.VAULT_KEY_FILE).unlink()
    text, code = run_command("check_tokens")
    assert code == 3
    assert settings.VAULT_KEY_FILE in text
    assert "restore the key file from its backup" in text
    assert "\n" not in text.strip()
    assert not Path(settings.VAULT_KEY_FILE).exists()


def test_a_key_that_others_can_read_is_refused_with_the_command_that_helps(
    connected: Portal, settings: Settings
) -> None:
    Path(settings.VAULT_KEY_FILE).chmod(0o640)
    text, code = run_command("check_tokens")
    assert code == 3
    assert f"chmod 600 {settings.VAULT_KEY_FILE}" in text
    assert "\n" not in text.strip()


def test_a_link_can_be_made_while_microsoft_is_away(connected: Portal, settings: Settings) -> None:
    settings.CLOUDS = local_clouds(closed_port())
    text, code = run_command("issue_consent_link", str(connected.partner.tenant_id))
    assert (code, "https://portal.localhost/consent/" in text) == (0, True)


@pytest.mark.req("R-49")
@pytest.mark.parametrize("path", ["/admin/", "/admin/tenants/partnertenant/", "/admin/consent/partnerconsent/", "link"])
def test_pages_show_their_data_while_microsoft_and_the_vault_are_away(
    connected: Portal, settings: Settings, client: Client, path: str
) -> None:
    path = connected.link() if path == "link" else path
    settings.CLOUDS = local_clouds(closed_port())
    settings.VAULT_URL = f"https://localhost:{closed_port()}"
    clients.reset()
    client.force_login(User.objects.create_superuser("anna"))
    page = client.get(path)
    assert page.status_code == 200
    assert path == "/admin/" or connected.partner.name in page.content.decode()


# --- deploy checks -------------------------------------------------------------------------------------------------

FLIPPED: dict[str, tuple[dict[str, Any], str]] = {
    "test endpoints": ({"TEST_ENDPOINTS": 8443}, "portal.E001"),
    "http base URL": ({"PUBLIC_BASE_URL": "http://portal.localhost"}, "portal.E002"),
    "short audit key": ({"INTEGRITY_KEY": "short"}, "portal.E003"),
    "audit key that is the secret key": ({"INTEGRITY_KEY": SECRET, "SECRET_KEY": SECRET}, "portal.E003"),
    "a proxy that is not trusted": (
        {"SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https"), "TRUSTED_PROXIES": 0},
        "portal.E004",
    ),
    "embedded vault": ({"VAULT_URL": "/var/lib/portal/vault"}, "portal.W001"),
    "one letter as audit key": ({"INTEGRITY_KEY": "a" * 40}, "portal.E003"),
    "one word again and again as audit key": ({"INTEGRITY_KEY": "password1" * 6}, "portal.E003"),
    "DEBUG": ({"DEBUG": True}, "portal.E005"),
    "short secret key": ({"SECRET_KEY": "short"}, "portal.E006"),
    "default secret key": ({"SECRET_KEY": "django-insecure-" + secrets.token_urlsafe(48)}, "portal.E006"),
    "one word again and again as secret key": ({"SECRET_KEY": "a1b2c3d4" * 8}, "portal.E006"),
    "weak older secret key": ({"SECRET_KEY_FALLBACKS": ["short"]}, "portal.E006"),
    "every host below a domain": ({"ALLOWED_HOSTS": ["portal.example.com", ".example.com"]}, "portal.E007"),
    "every host": ({"ALLOWED_HOSTS": ["*"]}, "portal.E007"),
    "a pattern of hosts": ({"ALLOWED_HOSTS": ["*.example.com"]}, "portal.E007"),
    "no HSTS at all": ({"SECURE_HSTS_SECONDS": 0}, "portal.E008"),
    "no content security policy": ({"SECURE_CSP": {}}, "portal.E010"),
    "a session cookie of any host": ({"SESSION_COOKIE_NAME": "sessionid"}, "portal.E010"),
    "a session cookie of other sites": ({"SESSION_COOKIE_SAMESITE": "None"}, "portal.E010"),
    "a CSRF cookie for scripts": ({"CSRF_COOKIE_HTTPONLY": False}, "portal.E010"),
    "a key file for all": ({"KEY_FILES": [Path(__file__)]}, "portal.E011"),
    "a password alone": ({"STAFF_PASSWORD_ALONE": True}, "staff.E001"),
    "a sign-in service without a second factor": (
        {"STAFF_OIDC_ISSUER": "https://id.example.com", "STAFF_OIDC_DEMAND_MFA": "none"},
        "staff.W001",
    ),
    "no hosts": ({"ALLOWED_HOSTS": []}, "security.W020"),
    "no HSTS": ({"SECURE_HSTS_SECONDS": 0}, "security.W004"),
    "HSTS without subdomains": ({"SECURE_HSTS_INCLUDE_SUBDOMAINS": False}, "security.W005"),
    "no redirect to https": ({"SECURE_SSL_REDIRECT": False}, "security.W008"),
    "plain session cookie": ({"SESSION_COOKIE_SECURE": False}, "security.W012"),
    "session cookie for scripts": ({"SESSION_COOKIE_HTTPONLY": False}, "security.W015"),
    "plain CSRF cookie": ({"CSRF_COOKIE_SECURE": False}, "security.W016"),
    "no nosniff": ({"SECURE_CONTENT_TYPE_NOSNIFF": False}, "security.W006"),
    "framing allowed": ({"X_FRAME_OPTIONS": "SAMEORIGIN"}, "security.W019"),
    "no referrer policy": ({"SECURE_REFERRER_POLICY": None}, "security.W022"),
}
PRODUCTION = {
    "SECRET_KEY": secrets.token_urlsafe(48),
    "INTEGRITY_KEY": secrets.token_urlsafe(48),
    "PUBLIC_BASE_URL": "https://portal.example.com",
    "VAULT_URL": "https://vendor.vault.azure.net",
    "TEST_ENDPOINTS": 0,
    "STAFF_PASSWORD_ALONE": False,
}


def deploy_ids(settings: Settings, changes: dict[str, Any]) -> set[str]:
    for name, value in (PRODUCTION | changes).items():
        setattr(settings, name, value)
    found = [one for one in checks.run_checks(include_deployment_checks=True) if not one.is_silenced()]
    assert all(one.hint for one in found if str(one.id).startswith("portal."))
    return {str(one.id) for one in found}


@pytest.mark.req("S-71")
@pytest.mark.django_db  # Django asks the database whether it knows JSON
def test_the_settings_that_the_next_test_opens_one_by_one_are_good(settings: Settings) -> None:
    assert deploy_ids(settings, {}) == set()


@pytest.mark.req("S-71")
@pytest.mark.req("S-27")
@pytest.mark.parametrize(("changes", "told"), FLIPPED.values(), ids=FLIPPED)
@pytest.mark.django_db
def test_each_opened_setting_has_its_own_deploy_check(settings: Settings, changes: dict[str, Any], told: str) -> None:
    assert told in deploy_ids(settings, changes)


# --- error-reporting clients ---------------------------------------------------------------------------------------


@pytest.mark.req("S-34")
@pytest.mark.parametrize("client", ["sentry_sdk", "rollbar", "ddtrace"])
def test_an_error_reporting_client_is_refused_with_its_name(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, client, ModuleType(client))
    with pytest.raises(ImproperlyConfigured, match=client):
        refuse_error_reporters()


@pytest.mark.req("S-34")
def test_a_process_with_an_error_reporting_client_does_not_start() -> None:
    client = "sentry_sdk"
    start = f"import sys, types; sys.modules[{client!r}] = types.ModuleType({client!r}); import django; django.setup()"
    refused = subprocess.run(
        [sys.executable, "-c", start],
        cwd=ROOT,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("django.core.exceptions.ImproperlyConfigured: An error-reporting")
    assert client in refused.stderr.splitlines()[-1]


@pytest.mark.req("S-34")
def test_no_package_that_we_install_is_an_error_reporting_client() -> None:
    from portal.checks import _ERROR_REPORTERS

    pinned = (ROOT / "requirements.txt").read_text()
    assert [name for name in _ERROR_REPORTERS if f"\n{name.replace('_', '-')}==" in pinned] == []
