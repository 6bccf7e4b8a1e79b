from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone

from portal.incidents import service
from portal.incidents.groups import Group, groups
from portal.incidents.models import Incident, IncidentNote, IncidentQuerySet, cause_in_words
from portal.incidents.remedies import RemedyButton, remedy_button
from portal.incidents.telling import recovery_in_words
from portal.microsoft.diagnosis import Owner
from portal.site.admin import ReadOnlyAdmin, ReadOnlyInline
from portal.site.asking import ask
from portal.site.base import actor_of
from portal.site.dashboard import Row
from portal.site.declared import column, moment_column, needs, path_column
from portal.site.display import EMPTY, Tone, badge, described, links, moment
from portal.site.page_actions import PageAction, page_action
from portal.site.subjects import facts
from portal.text import number_are, number_of

SETTLED_LATELY = timedelta(days=7)
_SHOWN_SETTLED = 20
_DAY_HOURS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownGroup:
    """A group with what its card leads to."""

    group: Group
    tone: Tone
    address: str
    remedy: RemedyButton | None


class NoteForm(forms.Form):
    """What a person writes to incidents."""

    words = forms.CharField(
        label="Note",
        max_length=service.LONGEST_NOTE,
        widget=forms.Textarea(attrs={"rows": 4}),
        help_text="Never a secret. At most 1,000 characters.",
    )


class SnoozeForm(forms.Form):
    """How long incidents are put off."""

    hours = forms.ChoiceField(
        label="For",
        choices=[
            (1, "1 hour"),
            (4, "4 hours"),
            (_DAY_HOURS, "1 day"),
            (3 * _DAY_HOURS, "3 days"),
            (7 * _DAY_HOURS, "7 days"),
            (30 * _DAY_HOURS, "30 days"),
        ],
    )


class OpenFilter(admin.SimpleListFilter):
    """Open ones unless asked otherwise."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [
            ("awake", "Open, not put off"),
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
            case "awake":
                return queryset.open().awake()
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
        "recovery",
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
    actions = ["take_up", "add_note", "put_off_incidents", "wake_incidents", "settle_incidents"]
    actions_detail = ["take_up_one", "note_one", "put_off_one", "wake_one", "settle_one"]

    has_settle_permission = needs("incidents.settle_incident")
    has_note_permission = needs("incidents.note_incident")
    has_snooze_permission = needs("incidents.snooze_incident")
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

    @admin.display(description="Recovery")
    def recovery(self, incident: Incident) -> str:
        return recovery_in_words(incident) if incident.settled_at else EMPTY

    mailed = moment_column("mailed_at", "Mailed to staff", sorts=False)

    @admin.display(description="Concerns")
    def concerns(self, incident: Incident) -> str:
        """What it concerns by its present name, with links to the pages that there are."""
        shown = facts(incident.subject)
        return links(shown) if shown else incident.name or EMPTY

    # --- groups ---

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.groups_view)
        return [path("groups/", view, name="incidents_incident_groups"), *super().get_urls()]

    def groups_view(self, request: HttpRequest) -> HttpResponseBase:
        """Show open incidents by cause and owner, those that are put off, and what was settled in the last week.

        A button of a group does an action of the list for the incidents that the group has when it is pressed; the
        confirmation then names each of them.
        """
        if not self.has_view_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            return self._do_for_group(request) or HttpResponseRedirect(request.path)
        now, mine = timezone.now(), self.visible_rows(request, Incident.objects.all())
        settled = mine.filter(settled_at__gte=now - SETTLED_LATELY).order_by("-settled_at", "-pk")
        context = {
            **self.admin_site.each_context(request),
            "title": "Incidents",
            "opts": self.opts,
            "groups": [self._shown(request, one) for one in groups(mine.open().awake(), now)],
            "asleep": [self._shown(request, one) for one in groups(mine.open().asleep(), now)],
            "settled": [
                Row(
                    label=recovery_in_words(one),
                    link=reverse("admin:incidents_incident_change", args=[one.pk]),
                    tone=Tone.GOOD,
                )
                for one in settled[:_SHOWN_SETTLED]
            ],
            "all_settled": f"{reverse('admin:incidents_incident_changelist')}?state=settled",
            "may": set(self.get_actions(request)),
        }
        return TemplateResponse(request, "admin/incidents/groups.html", context)

    def _shown(self, request: HttpRequest, group: Group) -> ShownGroup:
        query = urlencode({"cause": group.cause, "owner__exact": group.owner})
        return ShownGroup(
            group=group,
            tone=Tone.BAD if group.owner is Owner.US else Tone.WARN,
            address=f"{reverse('admin:incidents_incident_changelist')}?{query}",
            remedy=remedy_button(self.admin_site, request, group),
        )

    def _do_for_group(self, request: HttpRequest) -> HttpResponseBase | None:
        action = self.get_actions(request).get(request.POST.get("action", ""))
        if action is None:
            raise PermissionDenied
        mine = self.visible_rows(request, Incident.objects.all())
        if keys := request.POST.getlist(ACTION_CHECKBOX_NAME):
            rows = mine.filter(pk__in=[int(key) for key in keys if key.isdecimal()])
        else:
            rows = mine.open().filter(cause=request.POST.get("cause", ""), owner=request.POST.get("owner", ""))
            rows = rows.asleep() if request.POST.get("asleep") else rows.awake()
        return cast("HttpResponseBase | None", action.func(self, request, rows))

    # --- what people decide: for many from the lists, for one from its page ---

    def buttons(self, request: HttpRequest, row: Incident) -> list[PageAction]:
        fits = {"note_one"}
        if row.settled_at is None:
            is_asleep = row.snoozed_until is not None and row.snoozed_until > timezone.now()
            fits |= {"settle_one", "wake_one" if is_asleep else "put_off_one"}
            fits |= set() if row.seen_at else {"take_up_one"}
        return [button for button in super().buttons(request, row) if button.name in fits]

    def _one(
        self, request: HttpRequest, object_id: str, act: Callable[..., HttpResponseBase | None]
    ) -> HttpResponseBase:
        incident = self.get_object(request, object_id)
        if incident is None:
            raise Http404
        answer = act(request, Incident.objects.filter(pk=incident.pk))
        return answer or HttpResponseRedirect(reverse("admin:incidents_incident_change", args=[incident.pk]))

    @page_action(description="Take up", url_path="take-up", permissions=["view", "settle"])
    def take_up_one(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        return self._one(request, object_id, self.take_up)

    @page_action(description="Note", url_path="note", permissions=["view", "note"])
    def note_one(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        return self._one(request, object_id, self.add_note)

    @page_action(description="Put off", url_path="put-off", permissions=["view", "snooze"])
    def put_off_one(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        return self._one(request, object_id, self.put_off_incidents)

    @page_action(description="Wake up", url_path="wake", permissions=["view", "snooze"])
    def wake_one(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        return self._one(request, object_id, self.wake_incidents)

    @page_action(description="Settle", url_path="settle", permissions=["view", "settle"])
    def settle_one(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        return self._one(request, object_id, self.settle_incidents)

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
        self._say(request, done, "taken up")
        return None

    @admin.action(description="Note", permissions=["note"])
    def add_note(self, request: HttpRequest, queryset: IncidentQuerySet) -> HttpResponseBase | None:
        filled = ask(
            self,
            request,
            queryset,
            NoteForm,
            {},
            action="add_note",
            title="Write a note",
            explanation="The note stands on the page of each of these incidents, with your name.",
            button="Write the note",
        )
        if not isinstance(filled, NoteForm):
            return filled
        done = service.note(queryset, filled.cleaned_data["words"], actor=actor_of(request))
        self.message_user(request, f"The note stands on {number_of(done, 'incident')}.", messages.SUCCESS)
        return None

    @admin.action(description="Put off", permissions=["snooze"])
    def put_off_incidents(self, request: HttpRequest, queryset: IncidentQuerySet) -> HttpResponseBase | None:
        filled = ask(
            self,
            request,
            queryset,
            SnoozeForm,
            {"hours": _DAY_HOURS},
            action="put_off_incidents",
            title="Put off incidents",
            explanation=(
                "Until then no mail, no bell and no figure names them; the page of incidents shows them apart. "
                "They come back by themselves, and settle by themselves when the cause goes."
            ),
            button="Put off",
        )
        if not isinstance(filled, SnoozeForm):
            return filled
        until = timezone.now() + timedelta(hours=int(filled.cleaned_data["hours"]))
        done = service.snooze(queryset, until=until, actor=actor_of(request))
        self._say(request, done, f"put off until {until:%Y-%m-%d %H:%M} UTC")
        return None

    @admin.action(description="Wake up", permissions=["snooze"])
    def wake_incidents(self, request: HttpRequest, queryset: IncidentQuerySet) -> HttpResponseBase | None:
        if answer := self.confirm(
            request,
            queryset,
            action="wake_incidents",
            title="Wake incidents up",
            explanation="They are not put off any more: bell, figures and mails name them again.",
            button="Wake up",
        ):
            return answer
        done = service.wake(queryset, actor=actor_of(request))
        self._say(request, done, "awake again")
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
        self._say(request, done, "settled")
        return None

    def _say(self, request: HttpRequest, done: int, what: str) -> None:
        words = f"{number_are(done, 'incident')} {what}." if done else "Nothing was changed: it was so already."
        self.message_user(request, words, messages.SUCCESS if done else messages.WARNING)
