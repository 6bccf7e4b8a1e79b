"""What one member of staff may do with the account of another, on its page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from portal.site.admin import PortalModelAdmin, actor_of
from portal.site.page_actions import page_action
from portal.staff import accounts, factors, sessions
from portal.staff.models import LINK_LIFETIME, StaffSession

if TYPE_CHECKING:
    _Base = PortalModelAdmin[User]
else:
    _Base = object


class ColleagueActions(_Base):
    """Buttons on the page of an account, for the admin class of users."""

    actions_detail = ["end_sessions_of", "one_time_link"]

    def has_end_sessions_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("staff.end_staffsession")

    def has_make_link_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("staff.make_stafflink")

    def _person(self, request: HttpRequest, object_id: str) -> User:
        person: User | None = self.get_object(request, object_id)
        if person is None:
            raise Http404
        return person

    @page_action(description="Sessions", url_path="sessions", permissions=["view", "end_sessions"])
    def end_sessions_of(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Show where a person is signed in, and end all of it."""
        person = self._person(request, object_id)
        answer = self.confirm(
            request,
            User.objects.filter(pk=person.pk),
            action="end_sessions_of",
            title=f"Sessions of {person}",
            explanation="All sessions of this person end at once. To keep the person out, switch the account off.",
            button="End all sessions",
            dangerous=True,
        )
        if isinstance(answer, TemplateResponse):
            answer.template_name = "staff/sessions_of.html"
            found = {"person": person, "sessions": list(StaffSession.objects.of(person)), "factors": factors.of(person)}
            answer.context_data = {**(answer.context_data or {}), **found}
        if answer is not None:
            return answer
        ended = sessions.end_all_of_another(person, actor=actor_of(request))
        messages.success(request, f"{ended} session{'' if ended == 1 else 's'} of {person} ended.")
        return HttpResponseRedirect(reverse("admin:auth_user_change", args=[person.pk]))

    @page_action(
        description="Make a one-time link",
        url_path="one-time-link",
        permissions=["view", "make_link"],
        fresh=True,
        dangerous=True,
    )
    def one_time_link(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        """Make a link by which a person sets password and factor, and show it once."""
        person = self._person(request, object_id)
        if answer := self.confirm(
            request,
            User.objects.filter(pk=person.pk),
            action="one_time_link",
            title=f"One-time link for {person}",
            explanation=(
                "Whoever opens this link within an hour sets a new password and a new factor for the account; its old "
                "ones and its sessions end then. Make sure who asks you for it, and hand it over in person."
            ),
            button="Make the link",
            dangerous=True,
        ):
            return answer
        by: Any = request.user
        try:
            address = accounts.make_link(person, by=by, actor=actor_of(request))
        except accounts.AccountRefused as refused:
            messages.error(request, str(refused))
            return HttpResponseRedirect(reverse("admin:auth_user_change", args=[person.pk]))
        context = {
            **self.admin_site.each_context(request),
            "title": f"One-time link for {person}",
            "person": person,
            "address": address.reveal(),
            "minutes": int(LINK_LIFETIME.total_seconds() // 60),
            "opts": User._meta,
        }
        return TemplateResponse(request, "staff/link_made.html", context)
