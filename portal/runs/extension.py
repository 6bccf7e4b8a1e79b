"""What runs add to the admin."""

from portal.runs.models import Run
from portal.runs.panels import running_lines, runs_panel, units_with
from portal.runs.results import RESULTS_CHANGED
from portal.runs.schedule import FAILED
from portal.runs.service import HALTED
from portal.runs.stops import STOPPED
from portal.runs.summaries import label_of
from portal.site.causes import CauseWords, Remedy
from portal.site.extension_points import AdminExtension, ListEntry
from portal.site.limit_kinds import EVERYBODY, Sight
from portal.site.named import Named
from portal.site.navigation import Section
from portal.site.searchable import Searchable, by_number

EXTENSION = AdminExtension(
    panels=(runs_panel,),
    running=(running_lines,),
    trace=(units_with,),
    lists=(
        ListEntry(section=Section.ACTIVITY, title="Runs", model="runs.run"),
        ListEntry(section=Section.ACTIVITY, title="Schedule", model="runs.scheduledjob"),
        ListEntry(section=Section.ACTIVITY, title="", model="runs.runitem"),
    ),
    subjects={"run": Named(Run)},
    causes={
        RESULTS_CHANGED: CauseWords(title="Results of a run changed"),
        STOPPED: CauseWords(
            title="Run stopped", remedy=Remedy(label="See stopped runs", model="runs.Run", query="state__exact=stopped")
        ),
        HALTED: CauseWords(
            title="Run halted",
            remedy=Remedy(label="See paused runs", model="runs.Run", query="state__exact=paused"),
        ),
        FAILED: CauseWords(
            title="Job failed",
            remedy=Remedy(label="See failed jobs", model="runs.ScheduledJob", query="last_failed__exact=1"),
        ),
    },
    audit_words={
        "job.started": "A job of the schedule was started before its time",
        "run.cancelled": "A run was cancelled",
        "run.finished": "A run finished",
        "run.units_forgotten": "The rows of units of a run that were well, and well the next time, were removed",
        "run.halted": "A run halted: too many of its units failed",
        "run.held": "A run was held: nothing of it may be done until an emergency stop is over",
        "run.paused": "A run was paused",
        "run.resumed": "A run was resumed",
        "run.started": "A run was started",
        "run.stopped": "A run stopped: what failed concerns all of its units",
    },
    sights={
        "runs.run": Sight(person="actor"),
        "runs.runitem": Sight(person="run__actor"),
        "runs.scheduledjob": EVERYBODY,
    },
    searchable=(Searchable(title="Runs", rank=90, model=Run, find=by_number(Run, "run"), detail=label_of),),
)
