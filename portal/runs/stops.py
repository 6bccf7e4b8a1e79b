"""What a stopped run says, to whom, and when that is settled (R-14)."""

from __future__ import annotations

from portal.audit.trail import SYSTEM
from portal.incidents.models import Incident
from portal.incidents.service import LONGEST_WORDS, report, settle
from portal.microsoft.diagnosis import LATER, Owner
from portal.runs.listing import units_of
from portal.runs.models import RESUMED_AFTER, Run, RunItem
from portal.runs.registry import UnknownKind, kind_named
from portal.runs.summaries import label_of

STOPPED = "run_stopped"  # cause of incidents


def report_stop(run: Run, cause: str, owner: str) -> None:
    """Tell staff that a run was stopped, and who lets it go on (R-14).

    There is one incident for a kind whose units the schedule comes back to, however many runs of it stop; any other run
    has work of its own, and an incident of its own.
    """
    what = f"{label_of(run)}, run {run.pk}, stopped; no partner's state was changed."
    next_step = after_stop(run)
    words = f"{what} {cause[: LONGEST_WORDS - len(what) - len(next_step) - 2]} {next_step}"
    known = owner if owner in set(Owner) else Owner.US
    report(
        STOPPED,
        about=_about_stop(run),
        name=label_of(run),
        owner=Owner(known),
        words=words,
        subject={"run": run.pk},
    )


def cause_of_stop(message: str) -> str:
    """Return the cause from a unit's message, without a remedy that only holds while its run goes on."""
    return message.removesuffix(LATER).strip()


def after_stop(run: Run) -> str:
    """Return who lets a stopped run go on, and when."""
    if command := only_by(run):
        return f"When the cause is gone, run {command} again with the same input."
    if run.resume_at is not None:
        return (
            f"The workers resume run {run.pk} by themselves at {run.resume_at:%H:%M} UTC, try {run.resumes + 1} of "
            f"{len(RESUMED_AFTER)}; sooner: Resume on its page."
        )
    times = "once" if run.resumes == 1 else f"{run.resumes} times"
    in_vain = f"The workers resumed it {times} in vain" if run.resumes else ""
    if run.actor_kind == SYSTEM.kind and kind_named(run.kind).repeats:
        waits = (
            "The schedule comes back to its work once another run of this kind ended well; sooner: Resume on its page."
        )
        return f"{in_vain}. {waits}" if in_vain else waits
    if in_vain:
        return f"{in_vain} and do not try again: resume run {run.pk} on its page."
    return f"When the cause is gone, resume run {run.pk} on its page."


def own_stop(run: Run) -> str:
    return f"run:{run.pk}"


def _about_stop(run: Run) -> str:
    return run.kind if kind_named(run.kind).repeats else own_stop(run)


def settle_stops(run: Run) -> None:
    """Settle the incidents of stopped runs whose work is done: by this run itself, or by it and others since."""
    reported = set(Incident.objects.open().filter(cause=STOPPED).values_list("about", flat=True))
    if not reported:
        return
    others = Run.objects.filter(kind=run.kind, state=Run.State.STOPPED)
    if run.kind in reported and all(is_covered(other) for other in others):
        settle(STOPPED, about=run.kind)
    settle(STOPPED, about=own_stop(run))
    for other in others:
        if own_stop(other) in reported and is_covered(other):
            settle(STOPPED, about=own_stop(other))


def is_covered(stopped: Run) -> bool:
    """Tell whether later runs did what a stopped one left; what would not be listed any more does not count.

    Two queries for each thousand units.
    """
    kind, after = kind_named(stopped.kind), 0
    later = RunItem.objects.filter(
        run__kind=stopped.kind, state=RunItem.State.DONE, systemic=False, finished_at__gt=stopped.finished_at
    )
    well = stopped.items.filter(state=RunItem.State.DONE, systemic=False)
    while units := units_of(stopped, kind, after):
        after = units[-1].key
        left = {unit.key for unit in units}
        for done in (well, later):
            left -= set(done.filter(key__in=left).values_list("key", flat=True))
        if left:
            return False
    return True


def only_by(run: Run) -> str:
    """Return the command that alone goes on with what a run left, or nothing."""
    try:
        return kind_named(run.kind).only_by
    except UnknownKind:
        return ""
