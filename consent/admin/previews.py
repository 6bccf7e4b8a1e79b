"""The page that shows an invitation before it is sent, and mails it to the person who looks."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse

from consent.invitations import links, mails
from consent.models import ApplicationRegistration, Campaign, ConsentLink
from portal.mail import MailFailed, can_send
from portal.site.admin import PortalModelAdmin
from portal.site.base import actor_of
from tenants.models import PartnerTenant


def preview_page(
    page: PortalModelAdmin[Any],
    request: HttpRequest,
    partner: PartnerTenant,
    registration: ApplicationRegistration,
    *,
    back: str,
    kind: ConsentLink.Kind = ConsentLink.Kind.SIGN_IN,
    lifetime: timedelta | None = None,
    reason: Campaign.Reason = Campaign.Reason.FIRST_INVITATION,
) -> HttpResponse:
    """Show the mail to this partner; a POST sends it as a test to the person's own address, and to no other."""
    try:
        link, address = links.draft(partner, registration, kind=kind, lifetime=lifetime)
    except links.LinkRefused as refused:
        page.message_user(request, str(refused), messages.ERROR)
        return HttpResponseRedirect(back)
    own = getattr(request.user, "email", "")
    if request.method == "POST":
        try:
            mails.send_test(link, address, to=own, actor=actor_of(request), reason=reason)
        except MailFailed as failed:
            page.message_user(request, str(failed), messages.ERROR)
        else:
            page.message_user(request, f"A test was sent to {own}.", messages.SUCCESS)
        return HttpResponseRedirect(request.get_full_path())
    context = {
        **page.admin_site.each_context(request),
        "title": f"Mail to {partner}",
        "mail": mails.preview(link, address, reason=reason),
        "own": own if can_send() else "",
        "back": back,
        "opts": page.opts,
    }
    return TemplateResponse(request, "admin/consent/mail_preview.html", context)
