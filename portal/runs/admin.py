"""Runs for people: how far, how fast, what failed and what to do about it; pause, resume, cancel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from portal.microsoft.diagnosis import FailureClass
from portal.runs import schedule, service, summaries, tasks
from portal.runs.kinds import CRASHED, GONE, OK, SKIPPED, UNEXPECTED
from portal.runs.models import Run, RunItem, ScheduledJob
from portal.runs.panels import TONES
from portal.runs.progress import button_fits, class_words, progress_of, result_badge, shown_around
from portal.runs.registry import UnknownKind, jobs, kind_named, labels
from portal.site.admin import ReadOnlyAdmin
from portal.site.base import actor_of
from portal.site.declared import badge_column, moment_column, needs, path_column
from portal.site.display import EMPTY, Tone, badge, described, links, span
from portal.site.named import Fact
from portal.site.page_actions import PageAction, page_action
from portal.site.subjects import facts, lines
from portal.text import number_in, number_of

State = Run.State
_LATEST = 8  # repeats that are shown


def _in_words(run: Run, mapping: Mapping[str, Any]) -> tuple[list[Fact], dict[str, Any]]:
    """Return what scope or options say in the words of the kind, and the rest; what is off says nothing."""
    try:
        words = kind_named(run.kind).words
    except UnknownKind:
        words = {}
    said = {name: value for name, value in mapping.items() if value not in (None, False, "") and name != "purpose"}
    known = [(words[name].format(value), "") for name, value in sorted(said.items()) if name in words]
    return known, {name: value for name, value in said.items() if name not in words}


class KindFilter(admin.SimpleListFilter):
    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(labels().items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[Run]) -> QuerySet[Run]:
        return queryset.filter(kind=self.value()) if self.value() else queryset


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin[Run]):
    """Bulk work, the latest first."""

    empty_text = "Checks, syncs and plans that are worked in the background stand here."
    export_fields = ["id", "kind", "state", "total", "actor", "created_at", "started_at", "finished_at", "reason"]
    list_display = ["number", "shown_kind", "shown_state", "progress", "failed", "created", "finished", "actor"]
    list_display_links = ["number", "shown_kind"]
    list_filter = [KindFilter, "state", "created_at"]
    search_fields = ["=id", "actor"]
    fields = [
        "reason",
        "chosen",
        "shown_options",
        "repeats",
        "repeated",
        "actor",
        "concurrency",
        "rate",
        "deadline",
        "resumes_at",
        "resumes",
        "created",
        "started",
        "finished",
    ]
    actions_detail = ["pause_run", "resume_run", "repeat_failed", "cancel_run"]
    change_form_outer_before_template = "admin/runs/progress.html"

    def get_fields(self, request: HttpRequest, obj: Run | None = None) -> Any:
        """Return what says something of this run; its number, kind and state stand above."""
        if obj is None:
            return self.fields
        silent = {
            "reason": not obj.reason,
            "shown_options": not any(_in_words(obj, obj.options)),
            "repeats": obj.origin_id is None,
            "repeated": not obj.repeats.exists(),
            "rate": not obj.rate,
            "deadline": obj.deadline is None,
            "resumes_at": obj.resume_at is None,
            "resumes": not obj.resumes,
        }
        return [name for name in map(str, self.fields) if not silent.get(name)]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Run]:
        items = RunItem.objects.filter(run=OuterRef("pk"), state=RunItem.State.DONE).order_by().values("run")

        def number(of: QuerySet[RunItem, Any]) -> Coalesce:
            return Coalesce(Subquery(of.annotate(number=Count("pk")).values("number")), 0)

        return (
            super()
            .get_queryset(request)
            .annotate(
                done_count=number(items) + Coalesce("forgotten", 0),
                failed_count=number(items.filter(~Q(failure_class=OK))),
            )
        )

    has_steer_permission = needs("runs.steer_run")
    number = path_column("pk", "Run", str)

    @admin.display(ordering="kind", description="Kind")
    def shown_kind(self, run: Run) -> str:
        return summaries.label_of(run)

    shown_state = badge_column("state", "State", TONES)

    @admin.display(description="Done")
    def progress(self, run: Any) -> str:
        share = f" ({run.done_count / run.total:.0%})" if run.total and run.is_listed else ""
        return f"{run.done_count:,} of {run.total_words}{share}"

    @admin.display(ordering="failed_count", description="Not good")
    def failed(self, run: Any) -> str:
        return f"{run.failed_count:,}" if run.failed_count else EMPTY

    created = moment_column("created_at", "Asked for")
    started = moment_column("started_at", "Began")
    finished = moment_column("finished_at", "Finished")

    @admin.display(description="Chosen")
    def chosen(self, run: Run) -> str:
        known, rest = _in_words(run, run.scope)
        return links([*facts(rest), *known] or [("Everything", "")])

    @admin.display(description="Options")
    def shown_options(self, run: Run) -> str:
        known, rest = _in_words(run, run.options)
        return links([*known, *lines(rest)]) if known or rest else EMPTY

    resumes_at = moment_column("resume_at", "Resumes by itself at", sorts=False)

    @admin.display(description="Repeats the failed units of")
    def repeats(self, run: Run) -> str:
        if run.origin_id is None:
            return EMPTY
        return links([(f"Run {run.origin_id}", reverse("admin:runs_run_change", args=[run.origin_id]))])

    @admin.display(description="What failed was repeated by")
    def repeated(self, run: Run) -> str:
        return (
            links(
                [
                    (f"{one}: {one.get_state_display().lower()}", reverse("admin:runs_run_change", args=[one.pk]))
                    for one in run.repeats.order_by("-pk")[:_LATEST]
                ]
            )
            or EMPTY
        )

    # --- one run ---

    def get_urls(self) -> list[URLPattern]:
        own = path("<int:run_id>/progress/", self.admin_site.admin_view(self.progress_view), name="runs_run_progress")
        return [own, *super().get_urls()]

    def progress_view(self, request: HttpRequest, run_id: int) -> HttpResponse:
        """Return the panel alone; the page asks for it every few seconds while the run is open."""
        run = self._run(request, str(run_id))
        if not self.has_view_permission(request, run):
            raise Http404
        if request.GET.get("shown", shown := shown_around(run)) != shown:
            return HttpResponse(status=205)  # reset content: table and buttons of the page are out of date
        return TemplateResponse(request, "admin/runs/progress.html", {"run_progress": progress_of(run)})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        run = self.get_object(request, object_id) if self.has_view_permission(request) else None
        shown: dict[str, Any] = {}
        if run is not None:
            shown = {
                "run_progress": progress_of(run),
                "run_title": f"{summaries.label_of(run)}, run {run.pk}",
                "run_state": badge(run.get_state_display(), TONES[State(run.state)]),
            }
        return super().change_view(request, object_id, form_url, {**shown, **(extra_context or {})})

    def buttons(self, request: HttpRequest, row: Run) -> list[PageAction]:
        return [button for button in super().buttons(request, row) if button_fits(row, button.name)]

    def _run(self, request: HttpRequest, object_id: str) -> Run:
        run = self.get_object(request, object_id)
        if run is None:
            raise Http404
        return run

    @page_action(description="Pause", url_path="pause", permissions=["view", "steer"])
    def pause_run(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        run = self._run(request, object_id)
        return self._steer(
            request,
            run,
            action="pause_run",
            title="Pause the run",
            explanation="Its processes stop within seconds, after the units that were begun. It can go on later.",
            button="Pause",
            done=lambda: service.pause(run, actor=actor_of(request)),
        )

    @page_action(description="Resume", url_path="resume", permissions=["view", "steer"])
    def resume_run(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        run = self._run(request, object_id)
        if why := service.why_not_resumed(run):
            self.message_user(request, why, messages.WARNING)
            return HttpResponseRedirect(reverse("admin:runs_run_change", args=[run.pk]))

        def resume() -> bool:
            if run.state != State.OPEN and not service.resume(run, actor=actor_of(request)):
                return False
            tasks.enqueue(run)
            return True

        return self._steer(
            request,
            run,
            action="resume_run",
            title="Resume the run",
            explanation=(
                "The workers go on with what is left. What failed for a cause on our side is tried again; repair the "
                "cause first."
            ),
            button="Resume",
            done=resume,
        )

    @page_action(
        description="Cancel",
        url_path="cancel",
        permissions=["view", "steer"],
        dangerous=True,
    )
    def cancel_run(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        run = self._run(request, object_id)
        return self._steer(
            request,
            run,
            action="cancel_run",
            title="Cancel the run",
            explanation="Units that were not begun are not worked, now or later. What was done stays done.",
            button="Cancel the run",
            dangerous=True,
            done=lambda: service.cancel(run, actor=actor_of(request)),
        )

    @page_action(description="Repeat what failed", url_path="repeat-failed", permissions=["view", "steer"])
    def repeat_failed(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        run = self._run(request, object_id)
        if why := service.why_not_repeated(run):
            self.message_user(request, why, messages.WARNING)
            return HttpResponseRedirect(reverse("admin:runs_run_change", args=[run.pk]))
        number = run.items.to_repeat().count()
        if answer := self.confirm(
            request,
            Run.objects.filter(pk=run.pk),
            action="repeat_failed",
            title="Repeat what failed",
            explanation=(
                f"A new run works the {number:,} {'unit' if number == 1 else 'units'} of this one that failed, with "
                "the same options. What was done well is not touched."
            ),
            button="Repeat",
        ):
            return answer
        new, _ = service.repeat_failed(run, actor=actor_of(request))
        tasks.enqueue(new)
        return HttpResponseRedirect(reverse("admin:runs_run_change", args=[new.pk]))

    def _steer(self, request: HttpRequest, run: Run, *, done: Any, action: str, **words: Any) -> HttpResponseBase:
        if "_once" not in request.POST and not button_fits(run, action):
            return self._unchanged(request, run)
        if answer := self.confirm(request, Run.objects.filter(pk=run.pk), action=action, **words):
            return answer
        if done():
            self.message_user(request, f"The run is {run.get_state_display().lower()}.")
            return HttpResponseRedirect(reverse("admin:runs_run_change", args=[run.pk]))
        return self._unchanged(request, run)

    def _unchanged(self, request: HttpRequest, run: Run) -> HttpResponseRedirect:
        words = f"Nothing was changed: the run is {run.get_state_display().lower()}."
        self.message_user(request, words, messages.WARNING)
        return HttpResponseRedirect(reverse("admin:runs_run_change", args=[run.pk]))


class ResultFilter(admin.SimpleListFilter):
    """The words of all kinds; whatever else a kind says is found by search."""

    title = "result"
    parameter_name = "result"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        known = [*(str(one) for one in FailureClass), UNEXPECTED, CRASHED, GONE, SKIPPED]
        chosen = request.GET.get(self.parameter_name)
        if chosen and chosen != "not_ok" and chosen not in known:
            known.append(chosen[:24])
        return [("not_ok", "Not good"), *((name, class_words(name)) for name in known)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[RunItem]) -> QuerySet[RunItem]:
        if self.value() == "not_ok":
            return queryset.filter(state=RunItem.State.DONE).exclude(failure_class=OK)
        return queryset.filter(failure_class=self.value()) if self.value() else queryset


@admin.register(RunItem)
class RunItemAdmin(ReadOnlyAdmin[RunItem]):
    """The units of runs, with what came of each and what to do."""

    export_fields = [
        "run_id",
        "label",
        "state",
        "failure_class",
        "message",
        "owner",
        "code",
        "attempts",
        "correlation_id",
        "finished_at",
    ]
    link_lookups = ["run__id__exact"]
    list_display = ["label", "run", "result", "message", "owner", "code", "attempts", "finished"]
    list_filter = ["state", ResultFilter, "owner"]
    list_select_related = ["run", "executor"]
    search_fields = ["label", "=correlation_id", "=code"]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        of = number_in(request.GET.get("run__id__exact"))
        run = Run.objects.filter(pk=of).first() if of else None
        named = {"run": run, "list_title": f"Results of run {run.pk}"} if run is not None else {}
        return super().changelist_view(request, named | (extra_context or {}))

    fields = [
        "run",
        "label",
        "result",
        "message",
        "owner",
        "code",
        "correlation_id",
        "attempts",
        "executor",
        "not_before",
        "finished",
    ]

    @admin.display(ordering="failure_class", description="Result")
    def result(self, item: RunItem) -> str:
        return result_badge(item)

    finished = moment_column("finished_at", "Finished")


@admin.register(ScheduledJob)
class ScheduledJobAdmin(ReadOnlyAdmin[ScheduledJob]):
    """What happens by itself, when it did last, and when it is due next."""

    empty_text = "What happens by itself stands here once a worker has started."
    export_fields = ["name", "due_at", "last_started_at", "last_finished_at", "last_failed", "last_result"]
    list_display = ["job", "outcome", "last_started", "due", "last_result"]
    list_filter = ["last_failed", "due_at"]
    search_fields = ["name"]
    fields = [
        "every",
        "last_result",
        "last_started",
        "last_finished",
        "due",
        "first_due_at",
        "repeat_at",
        "cut_off",
    ]
    actions = ["run_now"]
    actions_detail = ["run_one_now"]
    change_form_template = "admin/runs/run/change_form.html"

    has_start_permission = needs("runs.start_scheduledjob")
    due = moment_column("due_at", "Next")
    last_started = moment_column("last_started_at", "Last started")
    last_finished = moment_column("last_finished_at", "Last ended")

    @admin.display(ordering="name", description="Job")
    def job(self, row: ScheduledJob) -> str:
        if row.name not in jobs():
            return self.label(row)
        return described(self.label(row), f"every {self.every(row).removeprefix('1 ')}")

    def label(self, row: ScheduledJob) -> str:
        job = jobs().get(row.name)
        return job.label if job else f"{row.name}, which no part of this portal does any more"

    @admin.display(description="Repeated every")
    def every(self, row: ScheduledJob) -> str:
        job = jobs().get(row.name)
        return span(job.every) if job else EMPTY

    @admin.display(ordering="last_failed", description="Outcome")
    def outcome(self, row: ScheduledJob) -> str:
        if row.repeat_at is not None:
            return badge("Being done", Tone.BUSY)
        if row.last_failed:
            return badge("Failed", Tone.BAD)
        return badge("Done", Tone.GOOD) if row.last_started_at else badge("Not yet", Tone.QUIET)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        row = self.get_object(request, unquote(object_id)) if self.has_view_permission(request) else None
        named = {} if row is None else {"run_title": self.label(row), "run_state": self.outcome(row)}
        return super().change_view(request, object_id, form_url, {**named, **(extra_context or {})})

    def get_fields(self, request: HttpRequest, obj: ScheduledJob | None = None) -> Any:
        if obj is None:
            return self.fields
        silent = {"repeat_at": obj.repeat_at is None, "first_due_at": obj.repeat_at is None, "cut_off": not obj.cut_off}
        return [name for name in map(str, self.fields) if not silent.get(name)]

    def buttons(self, request: HttpRequest, row: ScheduledJob) -> list[PageAction]:
        return super().buttons(request, row) if row.repeat_at is None and row.name in jobs() else []

    @page_action(description="Run now", url_path="run-now", permissions=["view", "start"])
    def run_one_now(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        page = reverse("admin:runs_scheduledjob_change", args=[quote(row.pk)])
        return self.run_now(request, ScheduledJob.objects.filter(pk=row.pk)) or HttpResponseRedirect(page)

    @admin.action(description="Run now", permissions=["start"])
    def run_now(self, request: HttpRequest, queryset: QuerySet[ScheduledJob]) -> HttpResponseBase | None:
        if answer := self.confirm(
            request,
            queryset,
            action="run_now",
            title="Run now",
            explanation=(
                "The workers begin these jobs now, and again at their usual time. One that is being done is left alone."
            ),
            button="Run now",
        ):
            return answer
        begun = sum(schedule.run_now(row.name, actor=actor_of(request)) for row in queryset if row.name in jobs())
        said = f"{number_of(begun, 'job')} left to the workers." if begun else "Nothing was begun: it is being done."
        self.message_user(request, said, messages.SUCCESS if begun else messages.WARNING)
        return None
