"""The demo's example data, made by the product's own means: real flows through the running portal and the sandbox's
sign-in, real syncs, checks and pushes. Nothing is written that a person could not have caused; only times are put back,
where a demo cannot wait for days: the age of a token, and the figures of the days before.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from urllib.parse import urlsplit

import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from django.conf import settings
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.core.management import call_command
from django.db.models import F
from django.utils import timezone

from consent import clients
from consent.applications import addresses, permission_sets, rotation
from consent.customers import plans, wanted
from consent.customers.consents import wanted_grants
from consent.figures import count_today
from consent.grants import Grants
from consent.invitations import campaigns, links, mails
from consent.models import (
    ApplicationRegistration,
    Campaign,
    ConsentLink,
    ConsentPlan,
    DailyFigures,
    OwnPermissionSet,
    PartnerConsent,
)
from consent.partners import disable
from consent.permissions import PERMISSION_SETS
from consent.runs.apply_plan import start_direct
from consent.runs.token_check import TOKEN_CHECK
from consent.runs.verify import CONSENT_VERIFY
from consent.selection import EVERYTHING, Selection, open_rows
from consent.tokens.health import CONFIRM_AFTER, LIFETIME, watch
from portal.audit.trail import Actor
from portal.microsoft.clouds import GRAPH_APPLICATION_ID, PARTNER_API_APPLICATION_ID, get_cloud
from portal.microsoft.secret import Secret
from portal.runs import service, tasks
from portal.runs.executor import Executor
from portal.runs.kinds import OK
from portal.runs.models import Run
from portal.text import number_of
from tenants.models import CustomerTenant, PartnerContact, PartnerTenant
from tests.sandbox.demo import environment

_ACTOR = Actor.command("demo")
PermissionSet = ApplicationRegistration.PermissionSet
_LINK = re.compile(r"https?://\S+/consent/[\w-]{43}/")
_CSRF = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What shall happen to one partner of the sandbox's ``demo`` scenario."""

    key: str
    note: str
    cloud: str = "global"
    consents: bool = True
    mfa: bool = True
    afterwards: str = ""


STORIES = (
    Story(key="northwind", note="healthy, 130 customers, some already granted"),
    Story(key="southridge", note="invited, never consented: use the link above", consents=False),
    Story(key="lakeview", note="consented without MFA", mfa=False),
    Story(key="harbour", note="somebody revoked the service account's sessions", afterwards="revoke"),
    Story(key="meadow", note="the service account lost the AdminAgents group", afterwards="role"),
    Story(key="fabric", note="disabled by staff", afterwards="disable"),
    Story(key="lotus", note="in China; healthy", cloud="china"),
    Story(key="liberty", note="in US Government; Microsoft refuses to renew its token, which ends soon", cloud="usgov"),
)


class Post(BaseEmailBackend):
    """Keeps the link of each mail by its recipient, instead of sending the mail."""

    def __init__(self) -> None:
        super().__init__()
        self.links: dict[str, str] = {}

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        for message in email_messages:
            self.links |= {address: _LINK.findall(str(message.body))[0] for address in message.to}
        return len(email_messages)


class Control:
    """The sandbox's control address, by its plain port."""

    def __init__(self) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Host"] = f"control.localhost:{environment.control_port}"
        self._base = f"http://127.0.0.1:{environment.control_port}"

    def get(self, path: str) -> Any:
        response = self._session.get(self._base + path, timeout=_SECONDS)
        response.raise_for_status()
        return response.json()

    def post(self, path: str, /, **body: Any) -> Any:
        response = self._session.post(self._base + path, json=body, timeout=_SECONDS)
        response.raise_for_status()
        return response.json()


def build(say: Callable[[str], None]) -> str:
    """Fill the portal with partners of three clouds and return the address of one open consent link."""
    control = Control()
    world = control.get("/state")
    prices = permission_sets.create(
        name="Extended, with the Partner API",
        note="Price sheets and referrals; China has no Partner API.",
        wanted=permission_sets.tidy(
            [
                *PERMISSION_SETS["extended"].to_json(),
                {"resource": PARTNER_API_APPLICATION_ID, "name": "user_impersonation"},
            ]
        ),
        actor=_ACTOR,
    )
    registration = _registration(control, world, own_set=prices)
    others = {cloud: _registration(control, world, cloud=cloud) for cloud in ("china", "usgov")}
    say("Registered the application in three clouds; its certificates are in the vault.")
    partners = {}
    for story in STORIES:
        told = next(one for one in world["partners"] if one["domain"] == f"{story.key}.example.com")
        partners[story.key] = PartnerTenant.objects.create(
            name=told["name"],
            tenant_id=told["tenant_id"],
            domain=told["domain"],
            cloud=told["cloud"],
        )
        PartnerContact.objects.create(
            partner=partners[story.key], name="Partner administration", email=_mail_of(partners[story.key])
        )
    post = Post()
    invited = _invite("First round", registration, Campaign.Reason.FIRST_INVITATION)
    for mailing in campaigns.send(invited, mailer=post, actor=_ACTOR):
        say(f"{mailing.partner}: invited.")
    open_link = post.links[_mail_of(partners["southridge"])]
    for story in STORIES:
        if story.cloud in others:
            _, secret = links.issue(partners[story.key], others[story.cloud], actor=_ACTOR)
            post.links[_mail_of(partners[story.key])] = secret.reveal()
    for story in STORIES:
        if story.consents:
            address = post.links[_mail_of(partners[story.key])]
            _consent(control, address, f"service@{story.key}.example.com", mfa=story.mfa)
            say(f"{partners[story.key]}: signed in and consented.")
    for story in STORIES:
        if story.consents and story.mfa:
            consent = _consent_of(partners[story.key])
            told = StringIO()
            call_command("sync_customers", "--partner", consent.partner.tenant_id, stdout=told)
            say(told.getvalue().splitlines()[0].removeprefix("ok").strip())
    _push_some(partners["northwind"], registration, say)
    for story in STORIES:
        if story.cloud in others:
            _push_all(partners[story.key], others[story.cloud], say)
    _bring_into_all_states(control, partners["northwind"], registration)
    for story in STORIES:
        _afterwards(control, story, partners[story.key])
    _check_all(say)
    _plan_more(registration, say)
    _invite_again(control, partners, registration, post)
    _consent_for_the_tenant(control, partners["northwind"], registration, post, say)
    _second_product(control, world, partners, say)
    _grow_old(control, partners["liberty"])
    _read_slowly(partners["northwind"], registration)
    _days_before()
    return open_link


def _mail_of(partner: PartnerTenant) -> str:
    return f"admin@{partner.domain}"


def _invite(name: str, registration: ApplicationRegistration, reason: Campaign.Reason) -> Campaign:
    return campaigns.create(
        name=name,
        registration=registration,
        reason=reason,
        partners=PartnerTenant.objects.active().in_cloud(registration.cloud),
        link_days=14,
        actor=_ACTOR,
    ).campaign


def _invite_again(
    control: Control, partners: dict[str, PartnerTenant], registration: ApplicationRegistration, post: Post
) -> None:
    """Show a campaign half done: one declined, one is at Microsoft, one has no address, one is not mailed yet."""
    campaign = _invite("New permissions", registration, Campaign.Reason.NEW_SCOPE)
    partners["lakeview"].contacts.update(gets_invitations=False)
    now = campaign.partners.exclude(partner=partners["northwind"]).values_list("pk", flat=True)
    for _ in campaigns.send(campaign, mailer=post, actor=_ACTOR, only=list(now)):
        pass
    _consent(control, post.links[_mail_of(partners["harbour"])], "service@harbour.example.com", accept=False)
    _press_continue(post.links[_mail_of(partners["meadow"])])


def _consent_for_the_tenant(
    control: Control,
    partner: PartnerTenant,
    registration: ApplicationRegistration,
    post: Post,
    say: Callable[[str], None],
) -> None:
    """Show a link for the whole tenant: an administrator consents, and no token comes of it."""
    link, address = links.issue(partner, registration, actor=_ACTOR, kind=ConsentLink.Kind.ADMIN_CONSENT)
    mails.announce(link, actor=_ACTOR)
    mails.deliver(link, address, mailer=post, actor=_ACTOR)
    _consent(control, post.links[_mail_of(partner)], f"service@{partner.domain}")
    say(f"{partner}: consented for the whole tenant, through a link of its own.")
    spare, _ = links.issue(partner, registration, actor=_ACTOR)
    links.revoke(spare, actor=_ACTOR)


def _registration(
    control: Control,
    world: Any,
    *,
    name: str = "Example Control Panel",
    cloud: str = "global",
    days: int = 90,
    own_set: OwnPermissionSet | None = None,
) -> ApplicationRegistration:
    """Register an application of the sandbox with a certificate that is made now and nowhere else known.

    It asks for the extended set, or for one of our own.
    """
    application_id, told = next(
        (app_id, one) for app_id, one in world["applications"].items() if (one["name"], one["cloud"]) == (name, cloud)
    )
    pem, der = _certificate(days)
    control.post(
        f"/applications/{application_id}/credentials",
        certificate=base64.b64encode(der).decode(),
    )
    for address in addresses.redirect_uris(cloud):
        control.post(f"/applications/{application_id}/credentials", redirect_uri=address)
    registration = ApplicationRegistration.objects.create(
        name=name if cloud == "global" else f"{name}, {get_cloud(cloud).name}",
        cloud=cloud,
        application_id=application_id,
        home_tenant_id=told["home_tenant"],
        permission_set=PermissionSet.EXTENDED if own_set is None else PermissionSet.OWN,
        own_set=own_set,
    )
    wanted.change(
        registration,
        {GRAPH_APPLICATION_ID: ["Directory.Read.All", "User.Read.All"]},
        actor=_ACTOR,
        shown_hash=Grants().digest,
    )
    credential = rotation.add_certificate(registration, pem, vault=clients.vault(), actor=_ACTOR)
    rotation.promote(credential, door=clients.tokens_with, actor=_ACTOR, allow_unproven=True)
    registration.refresh_from_db()
    registration.state = ApplicationRegistration.State.ACTIVE
    registration.save(update_fields=["state"])
    return registration


def _certificate(days: int = 90) -> tuple[Secret, bytes]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CPV portal demo")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = private + certificate.public_bytes(serialization.Encoding.PEM)
    return Secret(pem.decode()), certificate.public_bytes(serialization.Encoding.DER)


def _consent(control: Control, address: str, user: str, *, mfa: bool = True, accept: bool = True) -> None:
    """Go through the partner's pages over HTTP, as the partner's browser would."""
    browser, started = _press_continue(address)
    answer = control.post("/authorize", url=started.headers["Location"], user=user, mfa=mfa, accept=accept)
    sign_in = urlsplit(started.headers["Location"])
    # The sign-in page posts its answer; the admin consent endpoint leads back with a query.
    posted = answer["method"] == "POST"
    back = browser.request(
        answer["method"],
        answer["url"],
        data=answer["fields"] if posted else None,
        params=None if posted else answer["fields"],
        headers={"Cookie": _cookies(started), "Origin": f"{sign_in.scheme}://{sign_in.netloc}"},
        allow_redirects=False,
        timeout=_SECONDS,
    )
    if back.status_code != 303:
        raise RuntimeError(f"the callback answered {back.status_code}")


def _press_continue(address: str) -> tuple[requests.Session, requests.Response]:
    """Open the landing page and go to Microsoft. The cookies are in the answer."""
    browser = requests.Session()
    browser.trust_env, browser.verify = False, settings.TEST_CA_FILE
    page = browser.get(address, timeout=_SECONDS)
    token = _CSRF.search(page.text)
    if token is None:
        raise RuntimeError(f"the landing page answered {page.status_code}")
    # The cookies are marked Secure. A browser sends them to localhost over http all the same; requests does not.
    started = browser.post(
        f"{address}start",
        data={"csrfmiddlewaretoken": token[1]},
        headers={"Cookie": _cookies(page), "Origin": settings.PUBLIC_BASE_URL},
        allow_redirects=False,
        timeout=_SECONDS,
    )
    return browser, started


def _cookies(response: requests.Response) -> str:
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in response.cookies)


def _consent_of(partner: PartnerTenant) -> PartnerConsent:
    return PartnerConsent.objects.select_related("partner", "registration__credential").get(partner=partner)


def _push_some(partner: PartnerTenant, registration: ApplicationRegistration, say: Callable[[str], None]) -> None:
    """Push the consent to a few customers, and to one of each kind that cannot be pushed to."""
    customers = list(CustomerTenant.objects.for_partner(partner).order_by("company_name"))
    by_key = {customer.domain.partition(".")[0]: customer.pk for customer in customers}
    chosen = [by_key[f"northwind-customer-{number}"] for number in (0, 1, 2, 3, 101, 112, 120, 126)]
    push = ConsentPlan.Purpose.PUSH
    chosen_ones = Selection(customers=tuple(chosen), registration=registration.pk)
    run = _work(start_direct(push, chosen_ones, actor=_ACTOR, wait=5))
    for item in run.items.order_by("pk"):
        say(f"{item.label}: {item.failure_class} {item.message}".rstrip())


def _push_all(partner: PartnerTenant, registration: ApplicationRegistration, say: Callable[[str], None]) -> None:
    """Show the whole thread in another cloud: the consent is pushed to all customers."""
    chosen = tuple(CustomerTenant.objects.for_partner(partner).values_list("pk", flat=True))
    selection = Selection(customers=chosen, registration=registration.pk)
    run = _work(start_direct(ConsentPlan.Purpose.PUSH, selection, actor=_ACTOR, wait=5))
    good = run.items.filter(failure_class=OK).count()
    say(f"{partner}: {number_of(good, 'customer')} of {len(chosen)} granted.")


def _bring_into_all_states(control: Control, partner: PartnerTenant, registration: ApplicationRegistration) -> None:
    """Show what can become of a consent: changed from outside, not in sight yet, refused by Partner Center, absent."""
    customers = CustomerTenant.objects.for_partner(partner)
    by_key = {customer.domain.partition(".")[0]: customer for customer in customers}
    chosen = [by_key[f"northwind-customer-{number}"] for number in range(7)]
    app = registration.application_id
    more, less = ["Directory.Read.All", "User.Read.All", "Organization.Read.All"], ["Directory.Read.All"]
    for customer, scopes in ((chosen[1], more), (chosen[2], less)):
        control.post("/grants", tenant=customer.tenant_id, application=app, scopes=scopes)
    read = Selection(customer=tuple(chosen[number].tenant_id for number in (1, 2, 6)), registration=registration.pk)
    open_rows(read)
    _work(service.start(CONSENT_VERIFY, scope=read.to_json(), actor=_ACTOR))
    control.post(
        "/faults",
        service="partnercenter",
        path=f".*{chosen[5].tenant_id}/applicationconsents.*",
        method="POST",
        times=1000,
        status=400,
        body='{"code": 0, "description": "Unknown error"}',
    )
    control.post("/switches", consent_visible_after=1800.0)
    push = Selection(customers=(chosen[4].pk, chosen[5].pk), registration=registration.pk)
    _work(start_direct(ConsentPlan.Purpose.PUSH, push, actor=_ACTOR, wait=1))
    control.post("/switches", consent_visible_after=0.0)


def _second_product(
    control: Control, world: Any, partners: dict[str, PartnerTenant], say: Callable[[str], None]
) -> None:
    """Show partners of each cloud that are connected to two products; the credential of one ends soon."""
    for key, cloud, days in (("northwind", "global", 20), ("lotus", "china", 90), ("liberty", "usgov", 90)):
        second = _registration(control, world, name="Example Backup", cloud=cloud, days=days)
        _, address = links.issue(partners[key], second, actor=_ACTOR)
        _consent(control, address.reveal(), f"service@{key}.example.com")
        say(f"{partners[key]}: connected to {second} as well.")
    rotation.warn_of_expiry()


def _grow_old(control: Control, partner: PartnerTenant) -> None:
    """Show a token that ends in twelve days, because Microsoft refuses to renew it."""
    control.post("/refusals", code=90036, times=100_000, tenant_id=partner.tenant_id)
    run, _ = service.start(TOKEN_CHECK, scope=Selection(partner=(partner.tenant_id,)).to_json(), actor=_ACTOR)
    tasks.enqueue(run)
    then = timezone.now() - LIFETIME + timedelta(days=12)
    PartnerConsent.objects.filter(partner=partner).update(stored_at=then, consented_at=then)
    watch()


def _read_slowly(partner: PartnerTenant, registration: ApplicationRegistration) -> None:
    """Show a run at work for some minutes: customers that were never looked at are read, one in three seconds."""
    unread = CustomerTenant.objects.for_partner(partner).exclude(consents__registration=registration)
    chosen = Selection(customer=tuple(unread.values_list("tenant_id", flat=True)), registration=registration.pk)
    open_rows(chosen)
    run, _ = service.start(CONSENT_VERIFY, scope=chosen.to_json(), actor=_ACTOR, concurrency=1, rate=0.3)
    tasks.enqueue(run)


def _days_before() -> None:
    """Write the figures of the days before, as a portal that grew to what it is today would have counted them."""
    today = count_today()
    rows = []
    for days in range(1, 30):
        share = 1 - days / 40
        rows.append(
            DailyFigures(
                day=today.day - timedelta(days=days),
                partners={state: round(number * share) for state, number in today.partners.items()},
                customers=round(today.customers * share),
                granted_customers=round(today.granted_customers * share),
                consents={state: round(number * share) for state, number in today.consents.items()},
                open_incidents=(days * 7) % 4,
                counted_at=today.counted_at - timedelta(days=days),
            )
        )
    DailyFigures.objects.bulk_create(rows)


def _afterwards(control: Control, story: Story, partner: PartnerTenant) -> None:
    if story.afterwards == "revoke":
        control.post(f"/users/service@{story.key}.example.com", revoke_sessions=True)
    elif story.afterwards == "role":
        control.post(f"/users/service@{story.key}.example.com", groups=[])
    elif story.afterwards == "disable":
        disable(partner, actor=_ACTOR)


def _plan_more(registration: ApplicationRegistration, say: Callable[[str], None]) -> None:
    """Show what one more permission would mean."""
    now = wanted_grants(registration)
    more = {GRAPH_APPLICATION_ID: [*now[GRAPH_APPLICATION_ID], "Organization.Read.All"]}
    wanted.change(registration, more, actor=_ACTOR, shown_hash=now.digest)
    plan = plans.make_plan(registration, EVERYTHING, actor=_ACTOR)
    say(f"{plan}: {', '.join(f'{number} {name}' for name, number in plans.counts(plan).items())}.")


def _check_all(say: Callable[[str], None]) -> None:
    """Check every token, and twice where it is refused: a denial counts only when it is seen again ten minutes later.

    A demo cannot wait so long, so the first one is dated back until the second one has counted.
    """
    _check_tokens()
    denied = dict(PartnerConsent.objects.exclude(first_denied_at=None).values_list("pk", "first_denied_at"))
    PartnerConsent.objects.filter(pk__in=denied).update(first_denied_at=F("first_denied_at") - CONFIRM_AFTER)
    checked = _check_tokens()
    for key, first in denied.items():
        PartnerConsent.objects.filter(pk=key, first_denied_at__isnull=False).update(first_denied_at=first)
    for item in checked.items.all():
        say(f"{item.label}: {'token works' if item.failure_class == OK else item.message}")


def _check_tokens() -> Run:
    return _work(service.start(TOKEN_CHECK, scope={}, actor=_ACTOR))


def _work(started: tuple[Run, bool]) -> Run:
    """Work a run here, so that what follows finds it done."""
    run, _ = started
    Executor(run).work()
    return run
