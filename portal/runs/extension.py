"""What runs add to the admin."""

from portal.runs.models import Run
from portal.site.extension_points import AdminExtension
from portal.site.named import Named

EXTENSION = AdminExtension(subjects={"run": Named(Run)})
