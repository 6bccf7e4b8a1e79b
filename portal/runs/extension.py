"""What runs add to the admin."""

from portal.runs.models import Run
from portal.runs.service import label_of
from portal.site.extension_points import AdminExtension
from portal.site.named import Named
from portal.site.searchable import Searchable, by_number

EXTENSION = AdminExtension(
    subjects={"run": Named(Run)},
    searchable=(
        Searchable(title="Runs", rank=90, model=Run, find=by_number(Run, "run"), icon="playlist_play", detail=label_of),
    ),
)
