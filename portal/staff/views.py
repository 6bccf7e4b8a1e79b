"""The pages of the sign-in. What they decide stands in ``signing_in``; nobody is signed in before its last step."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import segno
from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from portal.audit.trail import Actor
from portal.site.addresses import client_address
from portal.site.middleware import PERMISSIONS_POLICY
from portal.site.policy import landing_policy
from portal.staff import accounts, devices, directory, factors, passkeys, signing_in
from portal.staff.forms import AppForm, CodeForm, NewPasswordForm, PasskeyForm, PasswordForm, SignInForm
from portal.staff.models import Method
from portal.staff.signing_in import Pending, SignInRefused

type View = Callable[..., HttpResponseBase]

_WRONG = "Not signed in: the name or the password is wrong."
_WRONG_CODE = "This code is wrong, was used before, or is over. Wait for the next one."
_NO_PASSKEY = "This passkey was not accepted. Try again, or use another way."
_PAGE = require_http_methods(["GET", "HEAD", "POST"])


def page(request: HttpRequest, template: str, **context: Any) -> TemplateResponse:
    """Return a step of the sign-in: a page without navigation, also for who is signed in."""
    frame = admin.site.each_context(request) | {"has_permission": False}
    return TemplateResponse(request, f"staff/{template}.html", frame | context)


def allow_new_passkeys(response: HttpResponse) -> HttpResponse:
    """Let this page alone ask the browser for a new passkey."""
    response["Permissions-Policy"] = PERMISSIONS_POLICY.replace(
        "publickey-credentials-create=()", "publickey-credentials-create=(self)"
    )
    return response


def leading_to_the_directory(response: TemplateResponse) -> TemplateResponse:
    """Let the forms of this page lead to the organisation's sign-in service, where there is one."""
    if directory.is_set_up():
        landing_policy(response, directory.service_origin())
    return response


def following(request: HttpRequest) -> str:
    """Return where the person wanted to go: a path of ours, or the first page."""
    asked = request.POST.get("next") or request.GET.get("next") or ""
    safe = url_has_allowed_host_and_scheme(asked, allowed_hosts=None, require_https=True) and asked.startswith("/")
    return asked if safe else reverse("admin:index")


def told(refused: SignInRefused, wrong: str) -> str:
    """Return what the page says of a refusal; the same whether or not the account exists."""
    if refused.until is None:
        return wrong
    minutes = max(1, round((refused.until - timezone.now()).total_seconds() / 60))
    return (
        f"{wrong} There were too many wrong tries; the next one is looked at in "
        f"{minutes} minute{'' if minutes == 1 else 's'}."
    )


# --- name and password ------------------------------------------------------------------------------------------------


@sensitive_post_parameters()
@login_not_required
@_PAGE
def sign_in(request: HttpRequest) -> HttpResponseBase:
    """Ask for name and password, or a passkey."""
    if request.method != "POST" and admin.site.has_permission(request):
        return HttpResponseRedirect(following(request))
    if "answer" in request.POST:
        return _sign_in_by_passkey(request)
    form = SignInForm(request.POST or None)
    waits = False
    if form.is_valid():
        data = form.cleaned_data
        try:
            user, method = signing_in.check_password(request, data["username"], data["password"], data["code"])
        except SignInRefused as refused:
            waits = refused.until is not None
            form.add_error(None, told(refused, _WRONG))
        else:
            if method is None and signing_in.needs_factor(user):
                signing_in.remember(request, user, following(request))
                return HttpResponseRedirect(reverse("staff_factor"))
            return _enter(request, user, method or Method.PASSWORD, following(request))
    if not waits:
        del form.fields["code"]
    return _sign_in_page(request, form)


def _sign_in_page(request: HttpRequest, form: SignInForm, problem: str = "") -> TemplateResponse:
    return leading_to_the_directory(
        page(
            request,
            "sign_in",
            title="Sign in",
            form=form,
            problem=problem,
            passkey=passkeys.ask(),
            directory=directory.is_set_up(),
            next=following(request),
        )
    )


def _sign_in_by_passkey(request: HttpRequest) -> HttpResponseBase:
    try:
        user = signing_in.check_passkey(request, request.POST.get("kept", ""), request.POST["answer"])
    except SignInRefused:
        empty = SignInForm()
        del empty.fields["code"]
        return _sign_in_page(request, empty, _NO_PASSKEY)
    return _enter(request, user, Method.PASSKEY, following(request))


def _enter(request: HttpRequest, user: User, method: Method, to: str) -> HttpResponseBase:
    signing_in.finish(request, user, method)
    response = HttpResponseRedirect(to)
    devices.remember(request, response, user)
    return response


# --- the factor -------------------------------------------------------------------------------------------------------


def _of_pending(view: View) -> View:
    """Give a view who owes a factor in this browser; without anybody the sign-in begins anew."""

    @sensitive_post_parameters()
    @login_not_required
    @_PAGE
    @wraps(view)
    def checked(request: HttpRequest) -> HttpResponseBase:
        pending = signing_in.pending(request)
        if pending is None:
            return HttpResponseRedirect(reverse("staff_sign_in"))
        return view(request, pending)

    return checked


@_of_pending
def factor(request: HttpRequest, pending: Pending) -> HttpResponseBase:
    """Ask for the factor of an account, or lead to where its first one is set."""
    if pending.may_set_factor:
        return HttpResponseRedirect(reverse("staff_first_factor"))
    try:
        method = read_proof(request, pending.user)
    except SignInRefused as refused:
        return factor_page(request, pending.user, "factor", told(refused, _WRONG_CODE), title="Second step")
    if method is None:
        return factor_page(request, pending.user, "factor", title="Second step")
    return _enter(request, pending.user, method, pending.next)


def read_proof(request: HttpRequest, user: User) -> Method | None:
    """Return by which factor the posted form proves this person; None when nothing was posted.

    Raises:
        SignInRefused: by none.
    """
    if "answer" in request.POST:
        signing_in.check_passkey(request, request.POST.get("kept", ""), request.POST["answer"], user)
        return Method.PASSKEY
    if "code" in request.POST:
        return signing_in.check_code(request, user, request.POST["code"][:20])
    return None


def factor_page(request: HttpRequest, user: User, template: str, problem: str = "", **more: Any) -> TemplateResponse:
    """Return a page that asks for a factor that the person has."""
    kinds = factors.kinds(user)
    return page(
        request,
        template,
        problem=problem,
        has_app=factors.Type.TOTP in kinds,
        form=CodeForm() if kinds - {factors.Type.WEBAUTHN} else None,
        passkey=passkeys.ask(user) if factors.Type.WEBAUTHN in kinds else None,
        **more,
    )


@_of_pending
def first_factor(request: HttpRequest, pending: Pending) -> HttpResponseBase:
    """Set the first factor of an account, sign the person in, and show the recovery codes once."""
    if not pending.may_set_factor:
        return HttpResponseRedirect(reverse("staff_factor"))
    user = pending.user
    actor = Actor.staff(user.get_username(), client_address(request))
    problem, method = add_factor(request, user, actor)
    if method is None:
        return new_factor_page(request, user, "first_factor", problem, title="Set your second factor")
    codes = factors.new_recovery_codes(user, actor=actor)
    signing_in.finish(request, user, method)
    response = page(request, "codes", title="Recovery codes", codes=codes, next=pending.next)
    devices.remember(request, response, user)
    return response


def add_factor(request: HttpRequest, user: User, actor: Actor) -> tuple[str, Method | None]:
    """Add the factor that the posted form brings; return what is wrong with it, or which kind it is."""
    try:
        if "answer" in request.POST:
            passkey = PasskeyForm(request.POST)
            if not passkey.is_valid():
                return _NO_PASSKEY, None
            data = passkey.cleaned_data
            passkeys.add(user, data["kept"], data["answer"], data["name"], actor=actor)
            return "", Method.PASSKEY
        if "code" in request.POST:
            app = AppForm(request.POST)
            if not app.is_valid():
                return _WRONG_CODE, None
            factors.add_app(user, app.cleaned_data["kept"], app.cleaned_data["code"], actor=actor)
            return "", Method.TOTP
    except passkeys.PasskeyRefused:
        return _NO_PASSKEY, None
    except factors.CodeRefused:
        return _WRONG_CODE, None
    return "", None


def new_factor_page(request: HttpRequest, user: User, template: str, problem: str = "", **more: Any) -> HttpResponse:
    """Return a page that offers a new authenticator app and a new passkey."""
    app = factors.offer_app(user, request.POST.get("kept", "") if "code" in request.POST else "")
    response = page(
        request,
        template,
        problem=problem,
        app=app,
        key=" ".join(app.key[place : place + 4] for place in range(0, len(app.key), 4)),
        qr_code=segno.make_qr(app.address, error="m").svg_data_uri(border=4, light="#fff", omitsize=True),
        form=AppForm(initial={"kept": app.kept}),
        passkey=passkeys.offer(user),
        **more,
    )
    return allow_new_passkeys(response)


# --- a one-time link --------------------------------------------------------------------------------------------------


@sensitive_post_parameters()
@login_not_required
@_PAGE
def link(request: HttpRequest, token: str) -> HttpResponseBase:
    """Set the password behind a one-time link; the factor comes next."""
    found = accounts.find_link(token)
    if found is None:
        response = page(request, "link_over", title="This link is over")
        response.status_code = 404
        return response
    form = NewPasswordForm(found.user, request.POST or None)
    if form.is_valid():
        actor = Actor.staff(found.user.get_username(), client_address(request))
        if accounts.use_link(found, form.cleaned_data["new_password1"], actor=actor):
            if not signing_in.needs_factor(found.user):
                return _enter(request, found.user, Method.PASSWORD, reverse("admin:index"))
            signing_in.remember(request, found.user, reverse("admin:index"))
            return HttpResponseRedirect(reverse("staff_first_factor"))
        return HttpResponseRedirect(request.path)
    return page(request, "link", title="Set your password", form=form, link=found)


# --- a fresh proof ----------------------------------------------------------------------------------------------------


@sensitive_post_parameters()
@_PAGE
def prove(request: HttpRequest) -> HttpResponseBase:
    """Ask who is signed in to prove it again (S-49)."""
    user: Any = request.user
    problem = ""
    by_password = not factors.has_any(user) and user.has_usable_password()
    try:
        if by_password and "password" in request.POST:
            signing_in.check_password(request, user.get_username(), request.POST["password"])
            method: Method | None = Method.PASSWORD
        else:
            method = read_proof(request, user)
    except SignInRefused as refused:
        method, problem = None, told(refused, "The password is wrong." if by_password else _WRONG_CODE)
    if method is not None:
        signing_in.prove_again(request, user, method)
        return HttpResponseRedirect(following(request))
    return leading_to_the_directory(
        factor_page(
            request,
            user,
            "prove",
            problem,
            title="Prove that it is you",
            password=PasswordForm() if by_password else None,
            directory=directory.has_identity(user),
            next=following(request),
        )
    )
