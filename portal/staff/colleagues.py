"""What one member of staff may do with the account of another, on its page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from portal.decisions.asking import WhyForm, ask_second_person, what_comes_next
from portal.decisions.doing import approved, carried_out, take
from portal.decisions.kinds import CannotBeDone, Result
from portal.decisions.records import DecisionRefused
from portal.microsoft.secret import Secret
from portal.site.admin import PortalModelAdmin
from portal.site.asking import ask
from portal.site.base import actor_of
from portal.site.page_actions import page_action
from portal.staff import accounts, factors, sessions
from portal.staff.models import LINK_LIFETIME, StaffSession
from portal.staff.two_persons import LINK, link_for

_WHAT_A_LINK_DOES = (
    "Whoever opens this link within an hour sets a new password and a new factor for the account; its old ones and its "
    "sessions end then. Make sure who asks you for it."
)

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
        by: Any = request.user
        page = HttpResponseRedirect(reverse("admin:auth_user_change", args=[person.pk]))
        if why := accounts.why_no_link(person, by=by):
            messages.error(request, why)
            return page
        by_two = accounts.needs_second_person(person)
        try:
            if by_two and approved(LINK, link_for(person), account=by) is None:
                return self._ask_for_link(request, person) or page
            if answer := self.confirm(
                request,
                User.objects.filter(pk=person.pk),
                action="one_time_link",
                title=f"One-time link for {person}",
                explanation=f"{_WHAT_A_LINK_DOES} Hand it over in person.",
                button="Make the link",
                dangerous=True,
            ):
                return answer
            address = self._make_link(request, person, by_two=by_two)
        except (accounts.AccountRefused, CannotBeDone, DecisionRefused) as refused:
            messages.error(request, str(refused))
            return page
        context = {
            **self.admin_site.each_context(request),
            "title": f"One-time link for {person}",
            "person": person,
            "address": address.reveal(),
            "minutes": int(LINK_LIFETIME.total_seconds() // 60),
            "opts": User._meta,
        }
        return TemplateResponse(request, "staff/link_made.html", context)

    def _ask_for_link(self, request: HttpRequest, person: User) -> HttpResponseBase | None:
        """Ask a second person: the link takes an account away from its owner."""
        answer = ask(
            self,
            request,
            User.objects.filter(pk=person.pk),
            WhyForm,
            None,
            action="one_time_link",
            title=f"One-time link for {person}",
            explanation=(
                f"The account is in use, or that of a security administrator. {_WHAT_A_LINK_DOES} The owner of an "
                f"account in use is told by mail, and all staff by an incident. {what_comes_next()}"
            ),
            button="Ask for it",
            dangerous=True,
        )
        if isinstance(answer, HttpResponseBase):
            return answer
        return ask_second_person(self, request, LINK, link_for(person), answer.cleaned_data["why"])

    def _make_link(self, request: HttpRequest, person: User, *, by_two: bool) -> Secret:
        """Make the first link, or the one that was approved. Raises AccountRefused, CannotBeDone or DecisionRefused."""
        by: Any = request.user
        if not by_two:
            return accounts.make_link(person, by=by, actor=actor_of(request))
        approval = take(LINK, link_for(person), account=by)
        if approval is None:
            raise DecisionRefused("Another page made the link, or the approval is over. Ask for it anew.")
        with carried_out(approval) as deed:
            address = accounts.make_link(person, by=by, actor=actor_of(request), approved=approval)
            deed.result = Result(words="The link was made, and shown once to who asked.")
        return address
