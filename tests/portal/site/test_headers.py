"""Headers on every response, and which host answers what.

Covers: portal.site.middleware, portal.site.policy.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.test import Client
from django.utils.csp import build_policy

from portal.site.middleware import PERMISSIONS_POLICY, HostBindingMiddleware, SecurityHeadersMiddleware
from portal.site.policy import SITE_POLICY, landing_policy

PUBLIC, ADMIN, UNKNOWN = "/consent/no-such-link/", "/admin/login/", "/nowhere"


def directives(response: HttpResponseBase) -> dict[str, str]:
    pairs = (part.strip().partition(" ") for part in response.headers["Content-Security-Policy"].split(";"))
    return {name: value for name, _, value in pairs}


@pytest.mark.req("S-61")
@pytest.mark.django_db
@pytest.mark.parametrize("path", [PUBLIC, ADMIN, UNKNOWN])
def test_every_answer_carries_the_headers(client: Client, path: str) -> None:
    response = client.get(path)
    policy = directives(response)
    assert "unsafe" not in response["Content-Security-Policy"]
    assert policy["default-src"] == "'none'"
    assert policy["base-uri"] == policy["object-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Cross-Origin-Opener-Policy"] == "same-origin"
    assert response["Permissions-Policy"] == PERMISSIONS_POLICY
    assert response["Referrer-Policy"] == "same-origin"
    assert "max-age=31536000; includeSubDomains" in response["Strict-Transport-Security"]


@pytest.mark.req("S-61")
@pytest.mark.django_db
def test_nothing_frames_a_page_and_no_page_frames_anything(client: Client) -> None:
    for page in (client.get(PUBLIC), client.get(ADMIN)):
        assert (directives(page)["frame-ancestors"], page["X-Frame-Options"]) == ("'none'", "DENY")
        assert "frame-src" not in directives(page)  # default-src says none


@pytest.mark.req("S-61")
@pytest.mark.django_db
def test_a_refused_host_gets_the_headers_too(client: Client) -> None:
    response = client.get(PUBLIC, headers={"host": "evil.example"})
    assert response.status_code == 400
    assert directives(response)["default-src"] == "'none'"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["X-Frame-Options"] == "DENY"
    assert b"style=" not in response.content


@pytest.mark.req("S-22")
def test_a_view_may_be_stricter_about_the_referrer() -> None:
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(headers={"Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"})

    request = HttpRequest()
    request.path_info = PUBLIC
    assert SecurityHeadersMiddleware(view)(request).headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.req("S-61")
def test_only_one_plain_origin_can_be_added_to_form_action() -> None:
    response = HttpResponse()
    landing_policy(response, "https://login.microsoftonline.com")
    policy = build_policy(response._csp_config)  # type: ignore[attr-defined]
    assert "form-action 'self' https://login.microsoftonline.com" in policy
    assert "form-action" in SITE_POLICY
    assert SITE_POLICY["form-action"] == ["'self'"]
    for wide in (
        "https://*.microsoftonline.com",
        "https://login.microsoftonline.com/path",
        "https://login.microsoftonline.com; script-src *",
        "http://login.microsoftonline.com",
        "https://a.example https://b.example",
        "*",
        "https:",
    ):
        with pytest.raises(ValueError, match="form-action"):
            landing_policy(HttpResponse(), wide)


def test_no_policy_has_an_unsafe_keyword() -> None:
    assert "unsafe" not in build_policy(SITE_POLICY)
    assert "*" not in build_policy(SITE_POLICY)


def binding(settings: Any, admin_host: str) -> Any:
    settings.ADMIN_HOST = admin_host
    settings.ALLOWED_HOSTS = ["portal.example", "staff.example"]
    from django.http import Http404

    middleware = HostBindingMiddleware(lambda request: HttpResponse("reached"))

    def reached(host: str, path: str) -> bool:
        request = HttpRequest()
        request.path = request.path_info = path
        request.META["HTTP_HOST"] = host
        try:
            return bool(middleware(request))
        except Http404:
            return False

    return reached


@pytest.mark.req("S-25")
@pytest.mark.parametrize("admin_host", ["staff.example", "staff.example:8443"])
def test_each_host_answers_only_its_own_world(settings: Any, admin_host: str) -> None:
    reached = binding(settings, admin_host)
    for host, own, foreign in ((admin_host, "/admin/", PUBLIC), ("portal.example", PUBLIC, "/admin/")):
        assert reached(host, own)
        assert not reached(host, foreign)
        assert not reached(host, foreign + "deeper/?x=1")
        assert reached(host, "/static/site/admin.css")
    assert not reached("portal.example", "/admin")
    assert reached(admin_host, "/admin")


@pytest.mark.req("S-25")
def test_a_host_is_the_same_in_capitals_with_a_dot_or_with_another_port(settings: Any) -> None:
    reached = binding(settings, "staff.example")
    assert reached("STAFF.example.:8443", "/admin/")
    assert not reached("STAFF.example.", PUBLIC)
    with_port = binding(settings, "staff.example:8443")
    assert not with_port("staff.example", "/admin/")


def test_without_an_admin_host_one_host_answers_both(settings: Any) -> None:
    reached = binding(settings, "")
    assert reached("portal.example", "/admin/")
    assert reached("portal.example", PUBLIC)
