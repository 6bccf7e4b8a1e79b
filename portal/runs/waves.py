"""Waves: a run that changes something begins with few units, and goes on only while few of them fail.

All units of a wave have their result before one of the next is worked. An executor of the run judges it; the
conditions stand in the statements that change the row, so of several executors one opens a wave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from django.conf import settings
from django.db.models import Count, Exists, F, OuterRef, QuerySet

from portal.runs import service, summaries
from portal.runs.kinds import Kind
from portal.runs.models import Run, RunItem

_SHOWN = 4  # so many partners and causes are named
FEWEST = 20  # results of a wave that say something about it before it is over


def judge(run: Run, kind: Kind) -> bool:
    """Open the next wave when this one is over, or halt the run when too many units failed; tell whether it did either.

    Results from before the latest resume do not count: a person saw them and let the run go on.
    """
    run.refresh_from_db()
    if run.stop_share is not None and (reason := _too_many(run, run.stop_share, kind)):
        return _halt(run, reason)
    following = run.items.filter(wave__gt=run.wave).order_by("wave").values_list("wave", flat=True).first()
    if following is None:
        return False
    unworked = RunItem.objects.filter(run=OuterRef("pk"), wave__lte=run.wave).exclude(state=RunItem.State.DONE)
    whole = Run.objects.open().filter(listed_at__isnull=False)  # before that, more of this wave may come
    opened = whole.filter(~Exists(unworked), pk=run.pk, wave=run.wave).update(wave=following)
    run.refresh_from_db()
    return bool(opened)


def _too_many(run: Run, share: float, kind: Kind) -> str:
    """Return why this wave is the last; empty while it is not."""
    wave = run.items.filter(wave=run.wave)
    results = wave.filter(state=RunItem.State.DONE)
    if run.resumed_at is not None:
        results = results.filter(finished_at__gt=F("run__resumed_at"))
    classes = Counter(dict(results.order_by().values_list("failure_class").annotate(Count("pk"))))
    shared = {name for name in classes if name in kind.of_group}
    failed = sum(number for name, number in classes.items() if name not in kind.harmless | shared)
    worked = classes.total() - sum(classes[name] for name in shared)
    if not any(classes[name] for name in kind.unfinished):
        over = run.is_listed and not wave.exclude(state=RunItem.State.DONE).exists()
        enough = worked >= FEWEST or over
        if shared and (reason := _too_many_groups(results, shared, share, kind)):
            return f"Too many failed in wave {run.wave + 1}: {reason}"
        if not enough or failed <= share * worked:
            return ""
    most_first = sorted(classes.items(), key=lambda each: (-each[1], each[0]))
    counts = ", ".join(f"{number} {name}" for name, number in most_first)
    return f"Too many failed in wave {run.wave + 1}: {failed} of {worked} ({counts}).{_by_group(results, kind)}"


def _too_many_groups(results: QuerySet[RunItem], shared: Collection[str], share: float, kind: Kind) -> str:
    """Return in how many groups none of the units can be worked, when those are too many to be each one's own fault."""
    groups = results.order_by().values("group").distinct()
    failed, worked = groups.filter(failure_class__in=shared).count(), groups.count()
    if failed < settings.SAME_CAUSE_FEWEST or failed <= share * worked:
        return ""
    return f"{failed} of {worked} partners cannot be worked at all.{_by_group(results, kind)}"


def _by_group(results: QuerySet[RunItem], kind: Kind) -> str:
    """Return the failures of each partner by cause, most first; empty for a kind that names none."""
    failures = results.exclude(failure_class__in=kind.harmless).order_by().values_list("group", "failure_class")
    counted = list(failures.annotate(number=Count("pk")).order_by("-number", "group")[: _SHOWN + 1])
    names = kind.group_names({group for group, _, _ in counted})
    parts = [f"{names[group]}: {number} {name}" for group, name, number in counted[:_SHOWN] if group in names]
    more = "; and others" if len(counted) > _SHOWN else ""
    return f" {'; '.join(parts)}{more}." if parts else ""


def _halt(run: Run, reason: str) -> bool:
    words = (
        f"{summaries.label_of(run)}, run {run.pk}, waits for a decision. {reason} Look at its units; then let it "
        "go on with Resume on its page, or cancel it."
    )
    return service.halt(run, reason=reason, words=words)
