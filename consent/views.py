"""The public pages: HTTP in and out of ``consent.sign_in.flow``, and nothing else.

They read no staff session, create none, and render the same with or without a staff cookie (S-25).
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, Concatenate
from urllib.parse import quote, urlencode, urlsplit
from uuid import UUID

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import add_never_cache_headers
from django.utils.formats import date_format
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_GET, require_POST, require_safe

from consent import clients
from consent.applications.manifest import TOOLS
from consent.invitations import links
from consent.limits import CALLBACK, LANDING, START
from consent.models import ApplicationRegistration, ConsentFlow, ConsentLink
from consent.sign_in import flow
from consent.sign_in.flow import CallbackFlaw
from consent.upkeep import ATTEMPTS_KEPT_FOR
from consent.vault.base import VaultConfigurationError
from consent.words import (
    CHECK_WORDS,
    PROBLEMS,
    RESULTS,
    CheckState,
    PermissionGroup,
    Problem,
    groups_of,
    permission_groups,
    result_of,
)
from portal.audit.trail import Actor
from portal.microsoft.clouds import NationalCloud
from portal.microsoft.errors import RemoteError
from portal.microsoft.secret import Secret
from portal.site.addresses import client_address
from portal.site.limits import limited
from portal.site.policy import landing_policy

log = logging.getLogger(__name__)

# The name contains "token" because Django hides cookies by name in error reports (S-33).
COOKIE = "__Host-cpv-flow-token"
MAX_CALLBACK_BYTES = 64 * 1024
# Where administrators of a cloud work. Source: Microsoft Entra, "National clouds".
_LONGEST_CHECK = timedelta(minutes=2)  # a request is over long before; a check that is older was interrupted

_probe = flow.WriteProbe()


def public_page[**P](view: Callable[Concatenate[HttpRequest, P], HttpResponse]) -> Callable[..., HttpResponse]:
    """Mark a view as open to partners: no sign-in, never cached (S-22)."""

    @wraps(view)
    def wrapper(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        response = view(request, *args, **kwargs)
        add_never_cache_headers(response)
        return response

    login_not_required(wrapper)  # marks the function itself
    return wrapper


def problem_page(
    request: HttpRequest, problem: Problem, *, reference: str = "", status: int | None = None, retry_url: str = ""
) -> HttpResponse:
    """Show what happened, who must act and what to do next."""
    words = PROBLEMS[problem]
    return render(
        request,
        "consent/problem.html",
        {"problem": words, "reference": reference, "retry_url": retry_url, **_vendor()},
        status=status or words.status,
    )


def _vendor() -> dict[str, str]:
    return {"vendor_name": settings.VENDOR_NAME, "support_email": settings.SUPPORT_EMAIL}


@limited(LANDING)
@public_page
@require_safe
def landing(request: HttpRequest, token: str) -> HttpResponse:
    """Say who asks for what. Opening a link does nothing (S-02)."""
    return _landing_page(
        request, links.usable(token), reverse("consent:start", args=[token]), settings.PUBLIC_BASE_URL + request.path
    )


@limited(LANDING)
@public_page
@require_safe
def landing_again(request: HttpRequest, public_id: str) -> HttpResponse:
    """Show the landing page once more to the browser that made this attempt; the link's address is not known any more.

    Opening it does nothing either (S-02).
    """
    return _landing_page(request, _link_of(request, public_id), reverse("consent:start_again", args=[public_id]), "")


def _link_of(request: HttpRequest, public_id: str) -> ConsentLink | None:
    """Return the link of this browser's own attempt if it may be used now."""
    own = ConsentFlow.objects.filter(
        public_id=public_id, binder_hash=flow.sha256(request.COOKIES.get(COOKIE, ""))
    ).values("link")
    return ConsentLink.objects.usable().filter(pk__in=own).select_related("partner", "registration__own_set").first()


def _landing_page(request: HttpRequest, link: ConsentLink | None, start_url: str, address: str) -> HttpResponse:
    if link is None:
        return problem_page(request, Problem.LINK_UNUSABLE)
    if _is_contained(link):
        return problem_page(request, Problem.CONTAINED)
    cloud = clients.cloud(link.partner.cloud)
    response = render(
        request,
        "consent/landing.html",
        {
            "partner_name": link.partner.name,
            "tenant_id": link.partner.tenant_id,
            "cloud_name": cloud.name,
            "application_name": link.registration.name,
            "application_id": link.registration.application_id,
            "permissions": _asked_of_partners(link.registration),
            "trust_url": reverse("consent:trust", args=[link.registration.cloud, link.registration.application_id]),
            "expires_at": link.expires_at,
            "start_url": start_url,
            "pass_on": _pass_on(link, address) if address else "",
            "whole_tenant": link.kind == ConsentLink.Kind.ADMIN_CONSENT,
            "sign_in_host": urlsplit(cloud.sign_in).netloc,
            **_vendor(),
        },
    )
    # Browsers apply form-action to the redirect after the post as well: only this page may lead to Microsoft (S-61).
    landing_policy(response, cloud.sign_in)
    return response


def _is_contained(link: ConsentLink) -> bool:
    """Tell whether an emergency stop closes this link for now; no query."""
    return clients.gate().stop(link.partner_id, link.registration_id) is not None


def _asked_of_partners(registration: ApplicationRegistration) -> list[PermissionGroup]:
    """Return what a partner grants in its own tenant, in words; the same on each page."""
    asked = registration.asked
    return permission_groups(asked.resources(), words=asked.words(), services=asked.services())


@limited(LANDING)
@public_page
@require_safe
def trust(request: HttpRequest, cloud_key: str, application_id: UUID) -> HttpResponse:
    """Say what a partner's security review asks about one application. Neither its address nor its content is secret.

    A retired registration keeps its page: its partners still have something to take back.
    """
    known = ApplicationRegistration.objects.exclude(state=ApplicationRegistration.State.DRAFT)
    registration = known.filter(cloud=cloud_key, application_id=str(application_id)).first()
    if registration is None:
        return problem_page(request, Problem.LINK_UNUSABLE)
    cloud = clients.cloud(cloud_key)
    wanted = {grant.resource_application_id: grant.scopes for grant in registration.grants.all()}
    context = {
        "application_name": registration.name,
        "application_id": registration.application_id,
        "home_tenant_id": registration.home_tenant_id,
        "cloud_name": cloud.name,
        "sign_in_host": urlsplit(cloud.sign_in).netloc,
        "admin_center": urlsplit(TOOLS[cloud_key].portal).netloc,
        "permissions": _asked_of_partners(registration),
        "customer_permissions": groups_of(wanted),
        "addresses": settings.OUTGOING_ADDRESSES,
        "attempts_days": ATTEMPTS_KEPT_FOR.days,
        "as_of": timezone.now(),
        **_vendor(),
    }
    return render(request, "consent/trust.html", context)


def _pass_on(link: ConsentLink, address: str) -> str:
    """Return subject and text of a mail, for a ``mailto:`` address, from a reader to the administrator beside them."""
    subject = f"Please connect our tenant with {settings.VENDOR_NAME}"
    text = (
        f"Please read this page, and connect our tenant if you agree. Reading it starts nothing.\n\n{address}\n\n"
        "The page says which account and roles are needed. "
        f"The link works until {date_format(link.expires_at, 'j F Y, H:i T')}."
    )
    return urlencode({"subject": subject, "body": text}, quote_via=quote)


@limited(START)
@public_page
@require_POST
@sensitive_variables()
def start(request: HttpRequest, token: str) -> HttpResponse:
    """Create a flow, bind it to this browser and send it to Microsoft."""
    return _start(request, links.usable(token))


@limited(START)
@public_page
@require_POST
@sensitive_variables()
def start_again(request: HttpRequest, public_id: str) -> HttpResponse:
    """Create another flow for the link of an earlier one of this browser."""
    return _start(request, _link_of(request, public_id))


@sensitive_variables()
def _start(request: HttpRequest, link: ConsentLink | None) -> HttpResponse:
    if link is None:
        return problem_page(request, Problem.LINK_UNUSABLE)
    if _is_contained(link):
        return problem_page(request, Problem.CONTAINED)
    started = flow.start(
        link,
        binder=request.COOKIES.get(COOKIE, ""),
        cloud=clients.cloud(link.partner.cloud),
        actor=Actor.link(link.pk, client_address(request)),
    )
    response = _see_other(started.authorize_url)
    response.set_cookie(
        COOKIE,
        started.binder.reveal(),
        max_age=int(flow.FLOW_LIFETIME.total_seconds()),
        path="/",
        secure=True,
        httponly=True,
        samesite="None",  # the answer comes as a cross-site post; Lax cookies would not arrive
    )
    return response


@limited(CALLBACK)
@public_page
@csrf_exempt  # the only exempt view; state, cookie and claim protect it (S-21)
@sensitive_post_parameters()
@sensitive_variables()
def callback(request: HttpRequest, cloud_key: str) -> HttpResponse:
    """Receive Microsoft's answer. Nothing in it is identity: the validated ID token is."""
    try:
        _check_form(request, clients.cloud(cloud_key))
        posted = request.POST
        binder = request.COOKIES.get(COOKIE, "")
        found = flow.find(posted.get("state", ""), binder, cloud_key, ConsentLink.Kind.SIGN_IN)
        flow.check_issuer(found, posted.getlist("iss"), clients.consent_tools)
        return _redeem_once(request, found, binder, posted)
    except flow.CallbackRefused as refused:
        return _refuse(request, refused, cloud_key)
    except RemoteError as error:
        log.warning("a callback's issuer could not be compared: %s", error)
        return problem_page(request, Problem.TRY_AGAIN)
    except (DatabaseError, VaultConfigurationError):
        # the code is not spent as long as the flow was not claimed.
        return problem_page(request, Problem.STORAGE_UNAVAILABLE)


@limited(CALLBACK)
@public_page
@require_GET
@sensitive_variables()
def admin_consent_callback(request: HttpRequest, cloud_key: str) -> HttpResponse:
    """Receive the answer of the admin consent endpoint, which comes as a query string and proves no identity.

    State, cookie and claim guard it as they guard the other callback; it redeems nothing and stores no token.
    """
    try:
        _check_query(request)
        state, binder = request.GET["state"], request.COOKIES.get(COOKIE, "")
        found = flow.find(state, binder, cloud_key, ConsentLink.Kind.ADMIN_CONSENT)
        flow.check_issuer(found, request.GET.getlist("iss"), clients.consent_tools)
        if flow.claim(found):
            flow.finish_admin_consent(
                found,
                request.GET.get("error", ""),
                request.GET.get("error_description", "")[:2000],
                actor=Actor.link(found.link_id, client_address(request)),
            )
            return _to_result(found)
        return _to_earlier_result(found)
    except flow.CallbackRefused as refused:
        if refused.why is CallbackFlaw.UNKNOWN_STATE:
            refused = flow.CallbackRefused(CallbackFlaw.FORGED_ADMIN_CONSENT)
        return _refuse(request, refused, cloud_key)
    except RemoteError as error:
        log.warning("a callback's issuer could not be compared: %s", error)
        return problem_page(request, Problem.TRY_AGAIN)
    except (DatabaseError, VaultConfigurationError):
        return problem_page(request, Problem.STORAGE_UNAVAILABLE)


# What a person reads, and the status. All others look like no answer of Microsoft at all.
_NOT_THIS_BROWSERS = frozenset(
    {
        CallbackFlaw.UNKNOWN_STATE,
        CallbackFlaw.FOREIGN_COOKIE,
        CallbackFlaw.OTHER_CALLBACK,
        CallbackFlaw.FORGED_ADMIN_CONSENT,
        CallbackFlaw.FLOW_ENDED,
    }
)
_STATUS = {CallbackFlaw.METHOD: 405, CallbackFlaw.SIZE: 413}


def _refuse(request: HttpRequest, refused: flow.CallbackRefused, cloud_key: str) -> HttpResponse:
    """Note why, and answer; the reason itself is not shown."""
    try:
        flow.note_refused(refused, cloud_key, client_address(request))
    except DatabaseError as error:
        log.warning("a refused callback was not recorded: %s", type(error).__name__)
    if refused.why in _NOT_THIS_BROWSERS:
        if refused.why is CallbackFlaw.FLOW_ENDED and refused.flow:  # this browser's own
            return _problem_of(request, refused.flow, Problem.START_AGAIN)
        return problem_page(request, Problem.START_AGAIN)
    page = problem_page(request, Problem.MALFORMED, status=_STATUS.get(refused.why))
    if refused.why is CallbackFlaw.METHOD:
        page["Allow"] = "POST"
    return page


def _to_result(found: ConsentFlow) -> HttpResponse:
    """Lead to the page that holds no code, state or claim; with it they leave the address bar (S-22)."""
    response = _see_other(reverse("consent:result", args=[found.public_id]))
    response["Referrer-Policy"] = "no-referrer"
    return response


def _to_earlier_result(found: ConsentFlow) -> HttpResponse:
    """Answer a post that did not claim the flow: somebody was faster, or it expired, was revoked or disabled."""
    found.refresh_from_db(fields=["claimed_at"])
    if found.claimed_at is None:
        raise flow.CallbackRefused(CallbackFlaw.FLOW_ENDED, found)
    return _to_result(found)


@sensitive_variables()
def _redeem_once(request: HttpRequest, found: ConsentFlow, binder: str, posted: QueryDict) -> HttpResponse:
    if found.claimed_at is None and _is_contained(found.link):
        return _problem_of(request, found, Problem.CONTAINED)  # the code is not spent, and the flow not claimed
    if found.claimed_at is None and not _probe(clients.vault()):
        return _problem_of(request, found, Problem.STORAGE_UNAVAILABLE)
    if flow.claim(found):
        code = posted.get("code")
        answer = flow.CallbackAnswer(
            code=Secret(code) if code else None,
            error=posted.get("error", ""),
            error_description=posted.get("error_description", "")[:2000],
            error_subcode=posted.get("error_subcode", ""),
        )
        actor = Actor.link(found.link_id, client_address(request))
        try:
            flow.finish(found, answer, binder=binder, tools=clients.consent_tools(), actor=actor)
        except DatabaseError:  # the code is spent: sending it again would not help
            return problem_page(request, Problem.INTERRUPTED, reference=found.reference)
        return _to_result(found)
    return _to_earlier_result(found)


def _check_form(request: HttpRequest, cloud: NationalCloud) -> None:
    """Raise CallbackRefused for anything but one well-formed answer (S-20). Reads the body last."""
    if request.method != "POST":
        raise flow.CallbackRefused(CallbackFlaw.METHOD)
    if request.content_type != "application/x-www-form-urlencoded" or request.META.get("QUERY_STRING"):
        raise flow.CallbackRefused(CallbackFlaw.FORM)
    length = request.META.get("CONTENT_LENGTH") or ""
    if not length.isascii() or not length.isdecimal():
        raise flow.CallbackRefused(CallbackFlaw.FORM)
    if len(length) > 9 or int(length) > MAX_CALLBACK_BYTES:
        raise flow.CallbackRefused(CallbackFlaw.SIZE)
    own_origins = {cloud.sign_in, "null", *(f"https://{host}" for host in cloud.authority_aliases)}
    if request.headers.get("Origin", "null") not in own_origins:
        raise flow.CallbackRefused(CallbackFlaw.FOREIGN_ORIGIN)
    if request.headers.get("Sec-Fetch-Dest", "document") != "document":
        raise flow.CallbackRefused(CallbackFlaw.FRAMED)
    states, codes, errors = (request.POST.getlist(name) for name in ("state", "code", "error"))
    if len(states) > 1 or len(codes) + len(errors) > 1 or len(request.POST.getlist("iss")) > 1:
        raise flow.CallbackRefused(CallbackFlaw.REPEATED)
    if not all(states + codes + errors) or not states or not codes + errors:
        raise flow.CallbackRefused(CallbackFlaw.INCOMPLETE)


def _check_query(request: HttpRequest) -> None:
    """Raise CallbackRefused for anything but one well-formed answer of the admin consent endpoint."""
    states, errors, consents = (request.GET.getlist(name) for name in ("state", "error", "admin_consent"))
    if len(states) > 1 or len(errors) > 1 or len(consents) > 1:
        raise flow.CallbackRefused(CallbackFlaw.REPEATED)
    if not states or not (all(errors) if errors else consents == ["True"]):
        raise flow.CallbackRefused(CallbackFlaw.INCOMPLETE)


@public_page
@require_safe
def result(request: HttpRequest, public_id: str) -> HttpResponse:
    """Show how the flow ended; readable only by the browser that holds the flow's cookie (S-22)."""
    found = (
        ConsentFlow.objects.select_related("link__partner", "link__registration").filter(public_id=public_id).first()
    )
    binder = request.COOKIES.get(COOKIE, "")
    if found is None or not hmac.compare_digest(found.binder_hash, flow.sha256(binder)):
        return problem_page(request, Problem.LINK_UNUSABLE)
    response = _outcome_page(request, found)
    response["Referrer-Policy"] = "no-referrer"
    return response


def _outcome_page(request: HttpRequest, found: ConsentFlow) -> HttpResponse:
    if found.outcome == ConsentFlow.Outcome.REFUSED:
        return _problem_of(request, found, Problem(found.problem))
    if found.outcome in {ConsentFlow.Outcome.OPEN, ConsentFlow.Outcome.WORKING}:
        if found.claimed_at is not None and timezone.now() - found.claimed_at > _LONGEST_CHECK:
            return _problem_of(request, found, Problem.INTERRUPTED)
        # A second post of the same answer arrives while the first is still being checked.
        return problem_page(request, Problem.STILL_WORKING, reference=found.reference, retry_url=request.path)
    failed = any(check["state"] == CheckState.FAILED for check in found.checks)
    context: dict[str, Any] = {
        "words": RESULTS[result_of(found.outcome, failed=failed)],
        "outcome": found.outcome,
        "partner_name": found.link.partner.name,
        "tenant_id": found.link.partner.tenant_id,
        "checks": [{**CHECK_WORDS[check["check"]][check["state"]], "state": check["state"]} for check in found.checks],
        "reference": found.reference,
        "connected_at": found.finished_at,
        "retry_url": _again(found) if found.outcome == ConsentFlow.Outcome.MFA_MISSING else "",
        **_vendor(),
    }
    template = "consented" if found.outcome == ConsentFlow.Outcome.ADMIN_CONSENTED else "result"
    return render(request, f"consent/{template}.html", context)


def _problem_of(request: HttpRequest, found: ConsentFlow, problem: Problem) -> HttpResponse:
    retry_url = _again(found) if PROBLEMS[problem].again_here else ""
    return problem_page(request, problem, reference=found.reference, retry_url=retry_url)


def _again(found: ConsentFlow) -> str:
    """Return where this browser can try again, or nothing when the link is over."""
    usable = ConsentLink.objects.usable().filter(pk=found.link_id).exists()
    return reverse("consent:landing_again", args=[found.public_id]) if usable else ""


def _see_other(address: str) -> HttpResponse:
    response = HttpResponseRedirect(address)
    response.status_code = 303
    return response
