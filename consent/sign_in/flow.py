"""One consent attempt, from Continue to the stored token. Appendix 1 of the security requirements, as functions.

The browser that started a flow finishes it, once; the tenant was fixed by staff before; nothing is stored before the
account, its MFA and its rights are proven.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import partial

from django.conf import settings
from django.db import DatabaseError, transaction
from django.db.models.functions import Now
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from consent import alarms
from consent.alarms import Cause
from consent.applications.addresses import admin_consent_redirect_uri, redirect_uri
from consent.microsoft.entra import TokenResponse, admin_consent_url, authorize_url
from consent.microsoft.id_tokens import LEEWAY_SECONDS, Flaw, IdTokenRefused, VerifiedIdentity
from consent.models import ConsentFlow, ConsentLink, PartnerConsent
from consent.sign_in.approvals import hold
from consent.sign_in.proof import AnotherAccount, ConsentTools, GuestAccount, Proven, prove
from consent.tokens.custody import AnotherAccountPinned, NewConsent, ProvesLess, TokenUnavailable
from consent.tokens.service import Audience, Contained
from consent.uses.book import By, Purpose, Use
from consent.vault.base import Vault
from consent.words import Problem, problem_for_callback_error
from portal.audit.trail import Actor, Outcome, record
from portal.microsoft.clouds import NationalCloud
from portal.microsoft.diagnosis import callback_error_codes
from portal.microsoft.errors import (
    AccessDenied,
    AuthenticationFailed,
    ConsentRequired,
    InvalidRequest,
    MfaRequired,
    NotFound,
    RemoteError,
    UnexpectedResponse,
    safe_code,
)
from portal.microsoft.http import WEB_SECONDS, last_look, time_budget
from portal.microsoft.identifiers import CorrelationId, new_correlation_id
from portal.microsoft.secret import Secret
from portal.site.limits import Rule, limiter

log = logging.getLogger(__name__)

FLOW_LIFETIME = timedelta(minutes=15)  # time for a sign-in with MFA, and not for more (S-10)
BINDER_LENGTH = 43
_NOTED_SECONDS = 3600
_NOTED_IN_ALL = Rule(name="refused", per_address=200, window=_NOTED_SECONDS)  # lines an hour, from all addresses
_PROBE_SECONDS = 10.0  # how long one proof that the vault is writable is believed


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A new flow: where to send the browser, and the cookie that binds it."""

    authorize_url: str
    binder: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackAnswer:
    """The fields of a well-formed callback. ``code`` is None when Microsoft answered with an error."""

    code: Secret | None
    error: str = ""
    error_description: str = ""
    error_subcode: str = ""


class Refused(Exception):
    """This attempt ends with a page for the person. ``detail`` goes to the audit trail, never to the page."""

    def __init__(self, problem: Problem, *, code: str = "", detail: dict[str, str] | None = None) -> None:
        super().__init__(problem.value)
        self.problem = problem
        self.code = safe_code(code)
        self.detail = detail or {}


class CallbackFlaw(StrEnum):
    """Why a callback was refused before any flow was claimed. The words go to the audit trail."""

    METHOD = "method"
    FORM = "form"
    SIZE = "size"
    FOREIGN_ORIGIN = "foreign_origin"
    FRAMED = "framed"
    REPEATED = "repeated_parameters"
    INCOMPLETE = "missing_parameters"
    UNKNOWN_STATE = "unknown_state"
    FOREIGN_COOKIE = "foreign_cookie"
    OTHER_CALLBACK = "other_callback"
    FOREIGN_ISSUER = "foreign_issuer"
    FORGED_ADMIN_CONSENT = "forged_admin_consent"
    FLOW_ENDED = "flow_ended"


class CallbackRefused(Exception):
    """This request answers no flow that waits for it. Nothing was called or consumed.

    Args:
        flow: whose state it carried, when that is known.
    """

    def __init__(self, why: CallbackFlaw, flow: ConsentFlow | None = None) -> None:
        super().__init__(why.value)
        self.why = why
        self.flow = flow


def sha256(text: str) -> str:
    """Return the form in which the database recognises a random value."""
    return hashlib.sha256(text.encode()).hexdigest()


def _derive(label: str, flow_id: str, binder: str) -> Secret:
    """Derive PKCE verifier or nonce: never stored, needs the server's key and the browser's cookie (S-11, S-12)."""
    key = hmac.new(settings.SECRET_KEY.encode(), b"consent flow", hashlib.sha256).digest()
    digest = hmac.new(key, f"{label}\0{flow_id}\0{binder}".encode(), hashlib.sha256).digest()
    return Secret(base64.urlsafe_b64encode(digest).rstrip(b"=").decode())


def _challenge(verifier: Secret) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.reveal().encode()).digest()).rstrip(b"=").decode()


@sensitive_variables()
def start(link: ConsentLink, *, binder: str, cloud: NationalCloud, actor: Actor) -> Started:
    """Create a flow for this link and return where to go.

    Args:
        binder: the browser's flow cookie, reused for several tabs; anything of another length is replaced.
    """
    if len(binder) != BINDER_LENGTH or not binder.isascii():
        binder = secrets.token_urlsafe(32)
    state = secrets.token_urlsafe(32)
    flow = ConsentFlow.objects.create(
        link=link,
        public_id=secrets.token_hex(16),
        state_hash=sha256(state),
        binder_hash=sha256(binder),
        expires_at=timezone.now() + FLOW_LIFETIME,
        correlation_id=new_correlation_id(),
    )
    record(
        "flow.started",
        actor=actor,
        subject={"flow": flow.pk, "link": link.pk, "partner": link.partner_id},
        correlation_id=flow.correlation_id,
    )
    scopes = link.registration.asked.authorize_scopes(cloud)
    if link.kind == ConsentLink.Kind.ADMIN_CONSENT:
        address = admin_consent_url(
            cloud=cloud,
            tenant_id=link.partner.tenant,
            application_id=link.registration.client_id,
            redirect_uri=admin_consent_redirect_uri(cloud.key),
            scopes=scopes,
            state=state,
        )
        return Started(authorize_url=address, binder=Secret(binder))
    address = authorize_url(
        cloud=cloud,
        tenant_id=link.partner.tenant,
        application_id=link.registration.client_id,
        redirect_uri=redirect_uri(cloud.key),
        scopes=scopes,
        state=state,
        nonce=_derive("nonce", flow.public_id, binder).reveal(),
        code_challenge=_challenge(_derive("pkce", flow.public_id, binder)),
    )
    return Started(authorize_url=address, binder=Secret(binder))


def find(state: str, binder: str, cloud_key: str, kind: ConsentLink.Kind) -> ConsentFlow:
    """Return the flow of this state if the browser's cookie fits.

    Cloud and kind of the link must be those of the callback's path (S-19).

    Raises:
        CallbackRefused: it is no flow of this browser, or another callback's; nothing is consumed (S-07).
    """
    flow = (
        ConsentFlow.objects.select_related("link__partner", "link__registration__own_set")
        .filter(state_hash=sha256(state))
        .first()
    )
    if flow is None:
        raise CallbackRefused(CallbackFlaw.UNKNOWN_STATE)
    if not hmac.compare_digest(flow.binder_hash, sha256(binder)):
        raise CallbackRefused(CallbackFlaw.FOREIGN_COOKIE, flow)
    if (flow.link.partner.cloud, flow.link.kind) != (cloud_key, kind):
        raise CallbackRefused(CallbackFlaw.OTHER_CALLBACK, flow)
    return flow


def check_issuer(flow: ConsentFlow, issuers: Sequence[str], tools: Callable[[], ConsentTools]) -> None:
    """Compare the callback's ``iss`` with the flow's own issuer, exactly (S-19, RFC 9207 section 2.4).

    Raises:
        CallbackRefused: it is another one's; nothing is consumed.
        RemoteError: the cloud's discovery document, which names the issuer, cannot be read.
    """
    if not issuers:  # Entra sends none today
        return
    with time_budget(WEB_SECONDS):
        validator, cloud = tools().validator, tools().clouds(flow.link.partner.cloud)
        if list(issuers) != [validator.issuer(cloud, flow.link.partner.tenant)]:
            raise CallbackRefused(CallbackFlaw.FOREIGN_ISSUER, flow)


def note_refused(refused: CallbackRefused, cloud_key: str, address: str | None) -> None:
    """Leave one audit line for each reason, address and hour: a flood of callbacks does not flood the trail."""
    if limiter.seconds_to_wait(Rule(name=f"refused {refused.why}", per_address=1, window=_NOTED_SECONDS), address):
        return
    if limiter.seconds_to_wait(_NOTED_IN_ALL, None):
        return
    flow = refused.flow
    subject = {"flow": flow.pk, "link": flow.link_id, "partner": flow.link.partner_id} if flow else {}
    log.warning("callback refused: %s", refused.why, extra={"cloud": cloud_key, **subject})
    record(
        "callback.refused",
        actor=Actor.visitor(address),
        outcome=Outcome.REFUSED,
        subject=subject,
        details={"why": refused.why.value, "cloud": cloud_key},
        correlation_id=flow.correlation_id if flow else "",
    )


class WriteProbe:
    """Remembers for ten seconds that the vault could be written: a code works once, so look before spending it."""

    def __init__(self) -> None:
        self._proven_at = float("-inf")
        self._lock = threading.Lock()

    def __call__(self, vault: Vault) -> bool:
        with self._lock:
            if time.monotonic() - self._proven_at < _PROBE_SECONDS:
                return True
            try:
                vault.check_writable()
            except RemoteError as error:
                log.warning("the vault cannot be written, no code was spent: %s", error)
                return False
            self._proven_at = time.monotonic()
            return True


def claim(flow: ConsentFlow) -> bool:
    """Claim the flow by one conditional UPDATE; exactly one of any number of posts wins (S-09)."""
    won = (
        ConsentFlow.objects.claimable().filter(pk=flow.pk).update(claimed_at=Now(), outcome=ConsentFlow.Outcome.WORKING)
    )
    return won == 1


@sensitive_variables()
def finish(flow: ConsentFlow, answer: CallbackAnswer, *, binder: str, tools: ConsentTools, actor: Actor) -> None:
    """Bring a claimed flow to its end and write the outcome on its row. Raises nothing past the caller.

    Runs outside any transaction (R-35).
    """
    try:
        try:
            with time_budget(WEB_SECONDS):
                _redeem_and_store(flow, answer, binder, tools, actor)
        finally:
            tools.tokens.uses.write()
    except Refused as refused:
        _end_refused(flow, refused, actor)
    except DatabaseError:
        raise
    except Exception as error:
        # Whatever else it was, the person gets a page with a reference and the trail gets the kind of failure; the
        # text of an unknown exception stays out of both.
        log.exception("consent flow failed", extra={"flow": flow.reference})
        _end_refused(flow, Refused(Problem.OUR_FAULT, code=type(error).__name__), actor)


def finish_admin_consent(flow: ConsentFlow, error: str, error_description: str, *, actor: Actor) -> None:
    """End a claimed admin-consent flow. It proves no identity and gives no token: the answer is only noted.

    The ``tenant`` of the answer is not read at all: the person at the browser could write it.
    """
    if error:
        codes = callback_error_codes(error_description)
        problem = problem_for_callback_error(error, codes, "")
        _end_refused(flow, Refused(problem, code=f"AADSTS{codes[0]}" if codes else error[:40]), actor)
        return
    with transaction.atomic():
        _end(flow, ConsentFlow.Outcome.ADMIN_CONSENTED, [])
        record(
            "flow.admin_consented",
            actor=actor,
            subject={"flow": flow.pk, "link": flow.link_id, "partner": flow.link.partner_id},
            correlation_id=flow.correlation_id,
        )


@sensitive_variables()
def _redeem_and_store(
    flow: ConsentFlow, answer: CallbackAnswer, binder: str, tools: ConsentTools, actor: Actor
) -> None:
    if answer.code is None:
        codes = callback_error_codes(answer.error_description)
        problem = problem_for_callback_error(answer.error, codes, answer.error_subcode)
        raise Refused(problem, code=f"AADSTS{codes[0]}" if codes else answer.error[:40])
    link = flow.link
    cloud = tools.clouds(link.partner.cloud)
    correlation_id = CorrelationId(flow.correlation_id)
    try:
        with last_look(partial(tools.tokens.check_pair, link.partner_id, link.registration_id)):
            redeemed = tools.entra(link.registration, correlation_id).redeem_code(
                tenant_id=link.partner.tenant,
                code=answer.code,
                redirect_uri=redirect_uri(cloud.key),
                code_verifier=_derive("pkce", flow.public_id, binder),
                scope=Audience.PARTNER_CENTER.scope(cloud),
            )
        by = By(actor=actor, purpose=Purpose.SIGN_IN)
        use = Use(
            by=by,
            partner=link.partner_id,
            registration=link.registration_id,
            audience=Audience.PARTNER_CENTER,
            correlation_id=correlation_id,
        )
        tools.tokens.uses.note(use)  # written with those of the proof
        identity = _identify(flow, redeemed, cloud, binder, tools)
        if redeemed.refresh_token is None:
            raise Refused(Problem.OUR_FAULT, code="no_refresh_token")  # the registration lacks offline_access
        # S-17: the refresh token proves itself before it may replace anything.
        proven = prove(
            link.partner,
            link.registration,
            redeemed.refresh_token,
            object_id=identity.object_id,
            tools=tools,
            by=by,
            correlation_id=correlation_id,
        )
        _keep(flow, identity, proven, tools, actor)
    except AnotherAccount as other:
        detail = {"expected_tenant": link.partner.tenant_id, "actual_tenant": other.actual_tenant or ""}
        raise Refused(Problem.WRONG_TENANT, code="another_account", detail=detail) from None
    except GuestAccount:
        raise Refused(Problem.PERSONAL_OR_GUEST_ACCOUNT, code="guest") from None
    except IdTokenRefused as refused:
        raise _refused_id_token(flow, refused) from None
    except RemoteError as error:
        log.warning("consent flow refused: %s", error, extra={"flow": flow.reference})
        if isinstance(error, AuthenticationFailed) and error.service == "entra":
            alarms.report(Cause.CREDENTIAL_REFUSED, link.registration, error=error)
        raise Refused(_problem_for(error), code=error.code) from None
    except Contained:  # nothing was kept, and no token of it is used; see docs/architecture.md
        raise Refused(Problem.CONTAINED, code="contained") from None
    except TokenUnavailable:
        raise Refused(Problem.TRY_AGAIN) from None


def _keep(
    flow: ConsentFlow,
    identity: VerifiedIdentity,
    proven: Proven,
    tools: ConsentTools,
    actor: Actor,
) -> None:
    """Store the token, or hold it apart when another account is pinned (S-15)."""
    link = flow.link
    new = NewConsent(
        refresh_token=proven.refresh_token,
        object_id=identity.object_id,
        granted=proven.granted,
        mfa=proven.mfa,
        amr=proven.amr,
        checks=proven.checks,
    )
    correlation_id = CorrelationId(flow.correlation_id)
    connected = proven.mfa is PartnerConsent.Mfa.PROVEN
    outcome = ConsentFlow.Outcome.CONNECTED if connected else ConsentFlow.Outcome.MFA_MISSING
    try:
        tools.tokens.store_new_consent(
            link.partner,
            link.registration,
            new,
            actor=actor,
            correlation_id=correlation_id,
            in_same_transaction=lambda _: _end(flow, outcome, proven.checks),
        )
    except ProvesLess:
        raise Refused(Problem.MFA_MISSING, code="mfa_missing_kept_old") from None  # S-17: the working token stays
    except AnotherAccountPinned:
        tools.tokens.check_pair(link.partner_id, link.registration_id)
        hold(
            PartnerConsent.objects.get(partner=link.partner, registration=link.registration),
            new,
            vault=tools.vault,
            actor=actor,
            correlation_id=correlation_id,
            in_same_transaction=lambda: _end(flow, ConsentFlow.Outcome.WAITING_APPROVAL, proven.checks),
        )


def _identify(
    flow: ConsentFlow, redeemed: TokenResponse, cloud: NationalCloud, binder: str, tools: ConsentTools
) -> VerifiedIdentity:
    # A wrong clock of ours is named, and no partner blamed for it.
    if redeemed.clock_ahead is not None and abs(redeemed.clock_ahead) > LEEWAY_SECONDS:
        side = "ahead" if redeemed.clock_ahead > 0 else "behind"
        alarms.report(Cause.CLOCK_IS_WRONG, seconds=abs(redeemed.clock_ahead), side=side)
        raise Refused(Problem.CLOCK, code="clock_differs", detail={"seconds": f"{redeemed.clock_ahead:.0f}"})
    identity = tools.validator.validate(
        redeemed.id_token,
        cloud=cloud,
        tenant_id=flow.link.partner.tenant,
        application_id=flow.link.registration.client_id,
        nonce=_derive("nonce", flow.public_id, binder),
    )
    alarms.settle([Cause.CLOCK_IS_WRONG])
    return identity


def _refused_id_token(flow: ConsentFlow, refused: IdTokenRefused) -> Refused:
    problem = {
        Flaw.TENANT: Problem.WRONG_TENANT,
        Flaw.FOREIGN_ACCOUNT: Problem.PERSONAL_OR_GUEST_ACCOUNT,
        Flaw.NONCE: Problem.START_AGAIN,
    }.get(refused.flaw, Problem.ANSWER_REFUSED)
    detail = {"expected_tenant": str(flow.link.partner.tenant_id)}
    if refused.actual_tenant:
        detail["actual_tenant"] = refused.actual_tenant
    return Refused(problem, code=f"id_token_{refused.flaw}", detail=detail)


def _problem_for(error: RemoteError) -> Problem:
    if isinstance(error, MfaRequired):
        return Problem.MFA_MISSING
    if error.service == "vault":
        return Problem.STORAGE_UNAVAILABLE
    if isinstance(error, AccessDenied) and error.service == "partner_center":
        return Problem.ROLE_MISSING
    if isinstance(error, AuthenticationFailed | InvalidRequest) and error.service == "partner_center":
        return Problem.PARTNER_CENTER_REFUSED
    digits = error.code.removeprefix("AADSTS")
    look = isinstance(error, UnexpectedResponse) and digits.isdecimal()  # a number of Microsoft's that we do not know
    if error.service == "entra" and (look or isinstance(error, ConsentRequired | NotFound)):
        return problem_for_callback_error("", [int(digits)] if digits.isdecimal() else [], "")
    if error.retryable:
        return Problem.TRY_AGAIN
    return Problem.OUR_FAULT


def _end(flow: ConsentFlow, outcome: ConsentFlow.Outcome, checks: list[dict[str, str]]) -> None:
    """End the flow well; runs in the transaction that stores where the token is.

    A link is closed once its partner is connected; until then the same link serves for the next attempt.
    """
    now = timezone.now()
    ConsentFlow.objects.filter(pk=flow.pk).update(outcome=outcome, finished_at=now, checks=checks)
    if outcome in {ConsentFlow.Outcome.CONNECTED, ConsentFlow.Outcome.ADMIN_CONSENTED}:
        ConsentLink.objects.filter(pk=flow.link_id).update(closed_at=now)
        alarms.settle(alarms.OF_LINKS, [flow.link_id])


def _end_refused(flow: ConsentFlow, refused: Refused, actor: Actor) -> None:
    with transaction.atomic():
        ConsentFlow.objects.filter(pk=flow.pk).update(
            outcome=ConsentFlow.Outcome.REFUSED,
            finished_at=timezone.now(),
            problem=refused.problem.value,
            code=refused.code,
        )
        record(
            "flow.refused",
            actor=actor,
            outcome=Outcome.REFUSED,
            subject={"flow": flow.pk, "link": flow.link_id, "partner": flow.link.partner_id},
            details={"problem": refused.problem.value, "code": refused.code, **refused.detail},
            correlation_id=flow.correlation_id,
        )
        if refused.problem is Problem.WRONG_TENANT:
            alarms.report(Cause.WRONG_TENANT, flow)
        refusals = ConsentFlow.objects.filter(link=flow.link_id, outcome=ConsentFlow.Outcome.REFUSED)
        if refusals.count() > alarms.REFUSALS_THAT_ALARM:
            alarms.report(Cause.LINK_REFUSED_OFTEN, flow)
