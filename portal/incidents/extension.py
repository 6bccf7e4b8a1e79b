"""What incidents add to the admin."""

from portal.incidents.models import Incident
from portal.incidents.panels import incidents_panel
from portal.site.extension_points import AdminExtension
from portal.site.named import Named

EXTENSION = AdminExtension(panels=(incidents_panel,), subjects={"incident": Named(Incident)})
