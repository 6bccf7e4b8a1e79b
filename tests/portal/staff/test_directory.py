"""Sign-in by the organisation's own service: the vendor's tenant at Entra, as the sandbox plays it.

Covers: portal.staff.directory_views, portal.staff.directory_words, portal.staff.oidc.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from django.contrib.auth.models import Group, User
from django.urls import reverse
from pytest_django.fixtures import Settings

from portal.audit.models import AuditEvent
from portal.microsoft.secret import Secret
from portal.staff import directory
from portal.staff.models import Method, StaffIdentity, StaffSession
from portal.staff.oidc import Flaw
from tests.conftest import use_sandbox
from tests.sandbox import scenarios
from tests.sandbox.entra import Answer
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Application, Tamper, known_id
from tests.sandbox.world import User as Account
from tests.support.certificates import pem
from tests.support.sign_in import Person, with_app

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-46")]
CLIENT = known_id("application", "staff sign-in")
ANNA = "anna@vendor.global.example"
CALLBACK = "https://portal.localhost/admin/login/callback/"


class Vendor:
    """The vendor's own tenant with a registration for the portal's sign-in, and one member of staff."""

    def __init__(self, sandbox: Sandbox, settings: Settings) -> None:
        self.sandbox, self.tenant = sandbox, scenarios.vendor_tenant()
        self.application = Application(
            app_id=CLIENT,
            name="CPV portal, staff",
            home_tenant=self.tenant,
            multi_tenant=False,
            redirect_uris={CALLBACK},
            permissions={"00000003-0000-0000-c000-000000000000": {"User.Read"}},
            secrets={"a secret of the sandbox": sandbox.world.now() + 3600},
        )
        sandbox.world.applications[CLIENT] = self.application
        self.anna = self.add("anna")
        use_sandbox(settings, sandbox)
        settings.STAFF_OIDC_ISSUER = f"{sandbox.clouds['global'].authority}/{self.tenant}/v2.0"
        settings.STAFF_OIDC_CLIENT_ID = CLIENT
        settings.STAFF_OIDC_CREDENTIAL = Secret("a secret of the sandbox")
        settings.STAFF_OIDC_DEMAND_MFA = "acrs=c1"
        settings.STAFF_OIDC_ROLES = {"Portal.Operator": "Operators", "Portal.Viewer": "Viewers"}
        for name in ("Operators", "Viewers"):
            Group.objects.create(name=name)

    def add(self, name: str, *roles: str, tenant: str = "") -> Account:
        oid = known_id("user", name, tenant)
        account = Account(oid=oid, upn=f"{name}@vendor.global.example", name=name.capitalize())
        account.app_roles[CLIENT] = set(roles or ("Portal.Operator",))
        self.sandbox.world.tenants[tenant or self.tenant].users[oid] = account
        return account

    def leave(self, who: Person, **fields: str) -> str:
        """Press the button of the sign-in page, and return where the browser is sent."""
        path = reverse("staff_prove") if fields else reverse("admin:login")
        sent = who.send(who.get(path), reverse("staff_directory"), **fields)
        assert sent.status_code == 302, sent.content.decode()
        return str(sent["Location"])

    def answer(self, address: str, user: str = ANNA, **choices: Any) -> Answer:
        return self.sandbox.sign_in(address, user=user, **choices)

    def come_back(self, who: Person, answer: Answer, **changes: str) -> Any:
        return who.get(urlsplit(answer.url).path, answer.fields | changes)

    def sign_in(self, who: Person, **choices: Any) -> Any:
        return self.come_back(who, self.answer(self.leave(who), **choices))


@pytest.fixture
def vendor(sandbox: Sandbox, settings: Settings) -> Vendor:
    return Vendor(sandbox, settings)


def assert_refused(page: Any, flaw: Flaw) -> None:
    assert page.status_code == 403, page.content.decode()
    assert page.context["flaw"] == flaw
    assert "What to do next" in page.content.decode()
    event = AuditEvent.objects.filter(action="staff.signed_in").latest("sequence")
    assert (event.outcome, event.details["why"]) == (AuditEvent.Outcome.REFUSED, flaw)
    assert not StaffSession.objects.exists()


def test_the_right_person_gets_in_with_the_roles_of_the_directory(vendor: Vendor) -> None:
    anna = Person()
    page = anna.get("/admin/login/?next=/admin/audit/auditevent/")
    assert f"form-action 'self' {directory.service_origin()}" in page["Content-Security-Policy"]
    address = anna.send(page, reverse("staff_directory"))["Location"]
    asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    assert asked["code_challenge_method"] == "S256"
    assert asked["scope"] == "openid profile"
    assert urlsplit(address).path == f"/{vendor.tenant}/oauth2/v2.0/authorize"
    done = vendor.come_back(anna, vendor.answer(address))
    assert done["Location"] == "/admin/audit/auditevent/"
    assert anna.is_in()
    user = User.objects.get()
    assert (user.username, user.is_staff, user.is_superuser, user.has_usable_password()) == (ANNA, True, False, False)
    assert [group.name for group in user.groups.all()] == ["Operators"]
    identity = StaffIdentity.objects.get()
    assert (identity.user, identity.subject) == (user, vendor.anna.oid)
    assert StaffSession.objects.get().method == Method.DIRECTORY
    event = AuditEvent.objects.get(action="staff.signed_in")
    assert (event.actor, event.details) == (ANNA, {"by": "directory"})
    again = Person()
    vendor.sign_in(again)
    assert again.is_in()
    assert User.objects.count() == 1


def test_a_changed_role_is_taken_over_and_ends_the_sessions_of_before(vendor: Vendor) -> None:
    before, after = Person(), Person()
    vendor.sign_in(before)
    vendor.anna.app_roles[CLIENT] = {"Portal.Viewer", "Something.Else"}
    vendor.sign_in(after)
    assert [before.is_in(), after.is_in()] == [False, True]
    assert [group.name for group in User.objects.get().groups.all()] == ["Viewers"]
    event = AuditEvent.objects.filter(action="staff.roles_taken_over").latest("sequence")
    assert event.details == {"before": ["Operators"], "after": ["Viewers"]}


def test_an_account_of_the_same_name_is_not_opened(vendor: Vendor) -> None:
    local, _ = with_app(ANNA, email=ANNA)
    anna = Person()
    vendor.sign_in(anna)
    made = StaffIdentity.objects.get().user
    assert made != local
    assert made.username.startswith(f"{ANNA}+")
    assert not made.is_superuser


def test_who_has_no_role_is_told_who_must_act_and_leaves_no_account(vendor: Vendor) -> None:
    vendor.anna.app_roles.clear()
    page = vendor.sign_in(Person())
    assert_refused(page, Flaw.ROLE)
    assert "Who administers your organisation&#x27;s directory must give you one" in page.content.decode()
    assert not User.objects.exists()


def test_who_was_switched_off_here_stays_out(vendor: Vendor) -> None:
    vendor.sign_in(Person())
    user = User.objects.get()
    user.is_active = False
    user.save()
    assert_refused(vendor.sign_in(Person()), Flaw.SWITCHED_OFF)


def test_a_sign_in_without_mfa_is_refused_where_it_is_demanded(vendor: Vendor, settings: Settings) -> None:
    assert_refused(vendor.sign_in(Person(), mfa=False), Flaw.MFA)
    settings.STAFF_OIDC_DEMAND_MFA = "none"
    anna = Person()
    vendor.sign_in(anna, mfa=False)
    assert anna.is_in()


BENT: dict[str, tuple[Tamper, Flaw]] = {
    "no ID token": (Tamper(id_token="missing"), Flaw.MISSING),
    "unsigned": (Tamper(id_token="none_alg"), Flaw.ALGORITHM),
    "signed with our own public key as a secret": (Tamper(id_token="hs256"), Flaw.ALGORITHM),
    "a key of nobody": (Tamper(id_token="unknown_kid"), Flaw.KEY),
    "a bad signature": (Tamper(id_token="bad_signature"), Flaw.SIGNATURE),
    "two parts": (Tamper(id_token="two_segments"), Flaw.MALFORMED),
    "huge": (Tamper(claims={"filler": "x" * 20_000}), Flaw.MALFORMED),
    "a key in its header": (Tamper(header={"jku": "https://evil.example/keys"}), Flaw.MALFORMED),
    "another tenant": (Tamper(claims={"tid": known_id("tenant", "northwind")}), Flaw.TENANT),
    "no tenant": (Tamper(claims={"tid": None}), Flaw.TENANT),
    "another issuer": (Tamper(claims={"iss": "https://login.global.localhost/other/v2.0"}), Flaw.ISSUER),
    "another audience": (Tamper(claims={"aud": scenarios.application_id()}), Flaw.AUDIENCE),
    "two audiences": (Tamper(claims={"aud": [CLIENT, scenarios.application_id()]}), Flaw.AUDIENCE),
    "meant for another party": (Tamper(claims={"azp": scenarios.application_id()}), Flaw.AUDIENCE),
    "over": (Tamper(claims={"exp": 1_700_000_000}), Flaw.TIME),
    "from the future": (Tamper(claims={"iat": 4_000_000_000, "nbf": 4_000_000_000}), Flaw.TIME),
    "without a time": (Tamper(claims={"exp": None}), Flaw.MALFORMED),
    "without a nonce": (Tamper(claims={"nonce": None}), Flaw.NONCE),
    "another nonce": (Tamper(claims={"nonce": "0" * 64}), Flaw.NONCE),
    "nobody": (Tamper(claims={"oid": None}), Flaw.SUBJECT),
    "no GUID": (Tamper(claims={"oid": ANNA}), Flaw.SUBJECT),
}


@pytest.mark.req("S-14")
@pytest.mark.parametrize("bent", BENT)
def test_a_bent_id_token_is_refused_with_its_own_word(bent: str, vendor: Vendor) -> None:
    tamper, flaw = BENT[bent]
    vendor.sandbox.world.tampers.append(tamper)
    page = vendor.sign_in(Person())
    vendor.sandbox.world.tampers.clear()
    assert_refused(page, flaw)
    assert not User.objects.exists()


def test_a_nonce_of_an_earlier_sign_in_is_refused(vendor: Vendor) -> None:
    anna = Person()
    first = parse_qs(urlsplit(vendor.leave(anna)).query)["nonce"][0]
    address = vendor.leave(anna)
    vendor.sandbox.world.tampers.append(Tamper(claims={"nonce": first}))
    assert_refused(vendor.come_back(anna, vendor.answer(address)), Flaw.NONCE)


def test_an_account_of_another_tenant_never_comes_back(vendor: Vendor) -> None:
    """Entra itself stops it, because the address names the tenant; a forged answer is refused as another tenant's."""
    address = vendor.leave(Person())
    assert f"/{vendor.tenant}/" in urlsplit(address).path


ANSWERS: dict[str, Callable[[dict[str, str]], dict[str, str]]] = {
    "no state": lambda fields: fields | {"state": ""},
    "a bent state": lambda fields: fields | {"state": fields["state"][:-2] + "xx"},
}


@pytest.mark.parametrize("bent", ANSWERS)
def test_an_answer_without_its_state_is_refused(bent: str, vendor: Vendor) -> None:
    anna = Person()
    answer = vendor.answer(vendor.leave(anna))
    assert_refused(anna.get(reverse("staff_directory_callback"), ANSWERS[bent](answer.fields)), Flaw.STATE)


def test_an_answer_works_once_and_only_in_the_browser_that_began(vendor: Vendor) -> None:
    anna, thief = Person(), Person("203.0.113.7")
    answer = vendor.answer(vendor.leave(anna))
    vendor.leave(thief)
    assert_refused(vendor.come_back(thief, answer), Flaw.STATE)
    assert vendor.come_back(anna, answer).status_code == 302
    anna.cookies["__Host-staff-trip"] = "x"
    assert vendor.come_back(anna, answer).status_code == 403
    assert vendor.come_back(Person(), answer, code="another").status_code == 403


def test_an_answer_of_another_issuer_or_without_a_code_is_refused(vendor: Vendor) -> None:
    anna = Person()
    answer = vendor.answer(vendor.leave(anna))
    assert_refused(vendor.come_back(anna, answer, iss="https://evil.example"), Flaw.ISSUER)
    assert_refused(vendor.come_back(anna, answer, code=""), Flaw.DENIED)
    cancelled = vendor.answer(vendor.leave(anna), accept=False)
    assert_refused(vendor.come_back(anna, cancelled), Flaw.DENIED)


def test_our_credential_may_be_a_certificate(vendor: Vendor, settings: Settings) -> None:
    text = pem()
    vendor.application.secrets.clear()
    certificate = x509.load_pem_x509_certificate(text.encode())
    vendor.application.certificates.append(certificate.public_bytes(serialization.Encoding.DER))
    settings.STAFF_OIDC_CREDENTIAL = Secret(text)
    anna = Person()
    vendor.sign_in(anna)
    assert anna.is_in()


def test_a_refused_credential_and_a_silent_service_are_said_without_a_detail(
    vendor: Vendor, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.STAFF_OIDC_CREDENTIAL = Secret("another secret")
    page = vendor.sign_in(Person())
    assert page.status_code == 503
    assert "did not answer as it must" in page.content.decode()
    assert "another secret" not in page.content.decode() + caplog.text
    settings.STAFF_OIDC_ISSUER = settings.STAFF_OIDC_ISSUER.replace(vendor.tenant, known_id("tenant", "nobody"))
    anna = Person()
    assert anna.send(anna.get("/admin/login/"), reverse("staff_directory")).status_code == 503


def test_a_fresh_proof_by_the_service_is_of_the_same_person(vendor: Vendor) -> None:
    ben = vendor.add("ben")
    anna = Person()
    vendor.sign_in(anna)
    address = vendor.leave(anna, again="1", next="/admin/account/")
    assert parse_qs(urlsplit(address).query)["prompt"] == ["login"]
    other = vendor.come_back(anna, vendor.answer(address, user=ben.upn))
    assert other.status_code == 403
    assert other.context["flaw"] == Flaw.OTHER_PERSON
    done = vendor.come_back(anna, vendor.answer(vendor.leave(anna, again="1", next="/admin/account/")))
    assert done["Location"] == "/admin/account/"
    assert AuditEvent.objects.get(action="staff.proven_again").details == {"by": "directory"}
    assert anna.is_in()


def test_groups_that_a_token_leaves_out_are_said(vendor: Vendor, settings: Settings) -> None:
    vendor.anna.app_roles.clear()
    vendor.sandbox.world.tampers.append(Tamper(claims={"_claim_names": {"groups": "src1"}}))
    assert_refused(vendor.sign_in(Person()), Flaw.TOO_MANY_GROUPS)
    vendor.sandbox.world.tampers.append(Tamper(claims={"groups": [known_id("group", "operators")]}))
    settings.STAFF_OIDC_ROLES = {known_id("group", "operators"): "Operators"}
    anna = Person()
    vendor.sign_in(anna)
    assert anna.is_in()


def test_without_a_service_the_button_is_not_there(client: Any) -> None:
    assert "Sign in with your organisation" not in client.get("/admin/login/").content.decode()
