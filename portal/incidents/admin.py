from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone

from portal.incidents import service
from portal.incidents.models import Incident, IncidentNote, IncidentQuerySet, cause_in_words
from portal.site.admin import ReadOnlyAdmin, ReadOnlyInline, actor_of
from portal.site.declared import column, moment_column, needs, path_column
from portal.site.display import EMPTY, Tone, badge, described, links, moment
from portal.site.subjects import facts


class OpenFilter(admin.SimpleListFilter):
    """Open ones unless asked otherwise."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("new", "Not taken up"),
            ("taken_up", "Taken up"),
            ("put_off", "Put off"),
            ("settled", "Settled"),
            ("all", "All"),
        ]

    def choices(self, changelist: Any) -> Any:
        for choice in super().choices(changelist):
            yield (
                {**choice, "display": "Open"}
                if choice["query_string"] == changelist.get_query_string(remove=[self.parameter_name])
                else choice
            )

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        match self.value():
            case "all":
                return queryset
            case "settled":
                return queryset.filter(settled_at__isnull=False)
            case "new":
                return queryset.open().awake().filter(seen_at__isnull=True)
            case "taken_up":
                return queryset.open().awake().filter(seen_at__isnull=False)
            case "put_off":
                return queryset.open().asleep()
        return queryset.open()


class CauseFilter(admin.SimpleListFilter):
    """The causes that were reported, in words."""

    title = "cause"
    parameter_name = "cause"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        causes = Incident.objects.order_by("cause").values_list("cause", flat=True).distinct()
        return [(cause, cause_in_words(cause)) for cause in causes]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Incident]) -> QuerySet[Incident]:
        return queryset.filter(cause=self.value()) if self.value() else queryset


class NotesInline(ReadOnlyInline[IncidentNote, Incident]):
    """What people wrote to it."""

    model = IncidentNote
    fields = ["at", "by", "words"]
    show_change_link = False


@admin.register(Incident)
class IncidentAdmin(ReadOnlyAdmin[Incident]):
    """What somebody must look into."""

    empty_text = "Nothing needs to be looked into."
    list_display = ["title", "state", "what", "owner", "times", "last_seen", "first_seen"]
    list_filter = [OpenFilter, "owner", CauseFilter]
    search_fields = ["name", "words", "=about", "=cause"]
    fields = [
        "words",
        "state",
        "owner",
        "concerns",
        "times",
        "first_seen",
        "last_seen",
        "seen_by",
        "taken_up",
        "put_off",
        "settled",
        "came_back",
        "mailed",
    ]
    inlines = [NotesInline]
    export_fields = [
        "cause",
        "name",
        "about",
        "owner",
        "words",
        "times",
        "first_seen_at",
        "last_seen_at",
        "seen_by",
        "seen_at",
        "snoozed_until",
        "snoozed_by",
        "settled_at",
        "came_back",
        "mailed_at",
    ]
    actions = ["take_up", "settle_incidents"]

    has_settle_permission = needs("incidents.settle_incident")
    title = column("Incident", str, ordering="cause")
    what = path_column("words", "What happened and what to do", sorts=False)

    @admin.display(description="State")
    def state(self, incident: Incident) -> str:
        if incident.settled_at:
            return badge("Settled", Tone.GOOD)
        if incident.snoozed_until and incident.snoozed_until > timezone.now():
            return badge("Put off", Tone.QUIET)
        return badge("Taken up", Tone.WARN) if incident.seen_at else badge("New", Tone.BAD)

    last_seen = moment_column("last_seen_at", "Last seen")
    first_seen = moment_column("first_seen_at", "First seen")
    taken_up = moment_column("seen_at", "Taken up", sorts=False)

    @admin.display(description="Put off until")
    def put_off(self, incident: Incident) -> str:
        until = moment(incident.snoozed_until)
        return described(until, f"by {incident.snoozed_by}") if incident.snoozed_by else until

    settled = moment_column("settled_at", "Settled", sorts=False)
    mailed = moment_column("mailed_at", "Mailed to staff", sorts=False)

    @admin.display(description="Concerns")
    def concerns(self, incident: Incident) -> str:
        """What it concerns by its present name, with links to the pages that there are."""
        shown = facts(incident.subject)
        return links(shown) if shown else incident.name or EMPTY

    @admin.action(description="Take up", permissions=["settle"])
    def take_up(self, request: HttpRequest, queryset: IncidentQuerySet) -> HttpResponseBase | None:
        if answer := self.confirm(
            request,
            queryset,
            action="take_up",
            title="Take up incidents",
            explanation="The list shows that somebody looks into them, and who. Nothing else changes.",
            button="Take up",
        ):
            return answer
        done = service.take_up(queryset, actor=actor_of(request))
        self.message_user(request, f"{done} taken up.", messages.SUCCESS)
        return None

    @admin.action(description="Settle", permissions=["settle"])
    def settle_incidents(self, request: HttpRequest, queryset: IncidentQuerySet) -> HttpResponseBase | None:
        if answer := self.confirm(
            request,
            queryset,
            action="settle_incidents",
            title="Settle incidents",
            explanation=(
                "Use this when the cause is gone. Nothing is changed at Microsoft or in the vault; if it happens again "
                "a new incident is opened, and staff are mailed again."
            ),
            button="Settle",
        ):
            return answer
        done = service.close(queryset, actor=actor_of(request))
        self.message_user(request, f"{done} settled.", messages.SUCCESS)
        return None
