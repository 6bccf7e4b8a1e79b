from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import CharField, QuerySet, Value
from django.db.models.functions import Concat
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse

from portal.audit.models import AuditEvent
from portal.audit.trail import record
from portal.models import Team
from portal.site.admin import PortalModelAdmin, ReadOnlyAdmin
from portal.site.audit_words import in_a_sentence, known_actions, sentences
from portal.site.base import actor_of
from portal.site.change_list import PortalChangeList
from portal.site.declared import badge_column, column, moment_column
from portal.site.display import EMPTY, Tone, described, links
from portal.site.extension_points import extensions
from portal.site.named import Fact
from portal.site.proof import demand
from portal.site.subjects import facts, facts_of, lines, parse_about
from portal.site.trail_filters import CustomerFilter, DaysFilter, PartnerFilter, PersonFilter, RegistrationFilter
from portal.staff.colleagues import ColleagueActions
from portal.staff.role_pages import RolesAdmin, RolesOfStaff
from portal.staff.team_pages import TeamsAdmin, TeamsOfStaff

OUTCOME_TONES = {
    AuditEvent.Outcome.DONE: Tone.QUIET,
    AuditEvent.Outcome.REFUSED: Tone.WARN,
    AuditEvent.Outcome.FAILED: Tone.BAD,
    AuditEvent.Outcome.INTENT: Tone.BUSY,
}


class AboutFilter(admin.SimpleListFilter):
    """Events about one thing; its page leads here, and nothing is offered where no thing is chosen."""

    title = "about"
    parameter_name = "about"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        chosen = request.GET.get(self.parameter_name, "")
        about = parse_about(chosen)
        return [] if about is None else [(chosen, " ".join(text for text, _ in facts(dict([about]))))]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        about = parse_about(self.value())
        return queryset if about is None else queryset.about(**dict([about]))


class ActionFilter(admin.SimpleListFilter):
    """What happened, of all that the trail can say, in the words of its pages.

    What it holds is not asked: that would read an index of millions of entries for each page.
    """

    title = "what happened"
    parameter_name = "action"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        named = [(action, in_a_sentence(action, AuditEvent.Outcome.DONE)) for action in known_actions()]
        return sorted(named, key=lambda one: one[1])

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        return queryset.filter(action=self.value()) if self.value() else queryset


class AuditChangeList(PortalChangeList):
    """A page of events with the names of what they are about, which are looked up for all of them at once."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        for event, about in zip(self.result_list, facts_of([one.subject for one in self.result_list]), strict=True):
            event.lines = about


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin[AuditEvent]):
    """Read only, like the table itself."""

    empty_text = "What staff, partners and the portal itself do is written here."
    export_needs_proof = True
    list_display = ["sequence", "what_about", "who", "when", "shown_outcome"]
    sortable_by = ["sequence", "when", "what_about"]  # the others have filters, and no index to sort by
    list_filter = [
        AboutFilter,
        ActionFilter,
        PersonFilter,
        PartnerFilter,
        CustomerFilter,
        RegistrationFilter,
        ("at", DaysFilter),
        "outcome",
        "actor_kind",
    ]
    link_lookups = ["correlation_id__exact"]
    export_fields = [
        "sequence",
        "at",
        "actor_kind",
        "actor",
        "address",
        "what_happened",
        "action",
        "outcome",
        "subject",
        "details",
        "correlation_id",
    ]
    search_fields = ["=correlation_id", "=actor", "=action"]
    fields = [
        "sequence",
        "when",
        "who",
        "address",
        "what",
        "shown_outcome",
        "about",
        "more",
        "correlation_id",
        "follow",
    ]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return AuditChangeList

    # Who reads the trail, and about whom, is an entry as well (S-55).

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        answer: HttpResponse = super().changelist_view(request, extra_context)
        if request.method == "GET" and answer.status_code == 200:
            about = parse_about(request.GET.get(AboutFilter.parameter_name))
            asked = sorted(name[:60] for name in request.GET)[:20]
            details = {"asked": asked} if asked else {}
            record("trail.read", actor=actor_of(request), subject=dict([about]) if about else {}, details=details)
        return answer

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        answer: HttpResponse = super().change_view(request, object_id, form_url, extra_context)
        if request.method == "GET" and answer.status_code == 200 and object_id.isdecimal():
            record("trail.read", actor=actor_of(request), subject={"audit_entry": int(object_id)})
        return answer

    when = moment_column("at", "When")
    shown_outcome = badge_column("outcome", "Outcome", OUTCOME_TONES)
    who = column("Who", lambda event: described(event.actor, event.get_actor_kind_display()), ordering="actor")
    what = column("What happened", lambda event: f"{in_a_sentence(event.action, event.outcome)}.", ordering="action")

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        event: AuditEvent | None = context.get("original")
        if event is not None:
            heading = f"{event.sequence}: {in_a_sentence(event.action, event.outcome)}"
            context |= {"heading": heading, "subtitle": heading}
        return super().render_change_form(request, context, *args, **kwargs)

    def for_export(self, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        said = CharField(choices=list(sentences()))
        return queryset.annotate(what_happened=Concat("action", Value(":"), "outcome", output_field=said))

    @admin.display(description="What happened", ordering="action")
    def what_about(self, event: Any) -> str:
        return described(self.what(event), self.about(event))

    @admin.display(description="About")
    def about(self, event: Any) -> str:
        lines = event.lines if hasattr(event, "lines") else facts(event.subject)
        return links(lines) if lines else EMPTY

    @admin.display(description="Follow this id")
    def follow(self, event: AuditEvent) -> str:
        """Lead from a correlation id to all that carries it: entries, rows of the apps, the log, Microsoft."""
        if not event.correlation_id:
            return EMPTY
        number = AuditEvent.objects.filter(correlation_id=event.correlation_id).count()
        entries = f"{reverse('admin:audit_auditevent_changelist')}?correlation_id__exact={event.correlation_id}"
        found: list[Fact] = [(f"All {number} entries with it" if number > 1 else "The only entry with it", entries)]
        for extension in extensions():
            for trace in extension.trace:
                found += trace(event.correlation_id, event.at)
        found.append(("In the log: the lines that contain it", ""))
        found.append(("At Microsoft: the client request id of the calls; tell it to their support", ""))
        return links(found)

    @admin.display(description="Details")
    def more(self, event: AuditEvent) -> str:
        return links(lines(event.details)) if event.details else EMPTY


# Django registers these two with "delete selected" and a delete page; here a person who acted is never removed (S-54).
admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class StaffAdmin(ColleagueActions, RolesOfStaff, TeamsOfStaff, UserAdmin, PortalModelAdmin[User]):  # type: ignore[type-arg]  # not subscriptable at run time
    actions_detail = ["change_roles", "change_teams", *ColleagueActions.actions_detail]
    readonly_fields = ["shown_roles", "last_login", "date_joined"]
    fieldsets = [
        (None, {"fields": ["username", "password"]}),
        ("Person", {"fields": ["first_name", "last_name", "email"]}),
        ("Rights", {"fields": ["is_active", "is_staff", "shown_roles"]}),
        ("Dates", {"fields": ["last_login", "date_joined"]}),
    ]
    export_fields = ["username", "first_name", "last_name", "email", "is_active", "is_superuser", "last_login"]
    audit_word = "staff"
    audit_without_values = [
        "username",
        "first_name",
        "last_name",
        "email",
        "password",
        "password1",
        "password2",
        "usable_password",
    ]
    keeps_form = False  # it may hold a password
    export_needs_proof = True

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002
        """Lead to a one-time link: whoever could set the password of another person could be that person."""
        if first := demand(request, keep=False):
            return first
        person = self.get_object(request, id)
        if person is None or person.pk == request.user.pk or not self.has_change_permission(request, person):
            return super().user_change_password(request, id, form_url)
        words = "Nobody sets the password of somebody else. Make a one-time link, by which the person sets a new one."
        self.message_user(request, words, messages.WARNING)
        return HttpResponseRedirect(reverse("admin:auth_user_change", args=[person.pk]))


@admin.register(Group)
class RoleAdmin(RolesAdmin):
    pass


@admin.register(Team)
class TeamAdmin(TeamsAdmin):
    pass
