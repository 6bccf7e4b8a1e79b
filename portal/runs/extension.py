"""What runs add to the admin."""

from portal.runs.models import Run
from portal.runs.panels import running_lines
from portal.runs.service import label_of
from portal.site.extension_points import AdminExtension, ListEntry
from portal.site.named import Named
from portal.site.navigation import Section
from portal.site.searchable import Searchable, by_number

EXTENSION = AdminExtension(
    running=(running_lines,),
    lists=(
        ListEntry(section=Section.ACTIVITY, title="Runs", model="runs.run"),
        ListEntry(section=Section.ACTIVITY, title="Schedule", model="runs.scheduledjob"),
        ListEntry(section=Section.ACTIVITY, title="", model="runs.runitem"),
    ),
    subjects={"run": Named(Run)},
    searchable=(Searchable(title="Runs", rank=90, model=Run, find=by_number(Run, "run"), detail=label_of),),
)
