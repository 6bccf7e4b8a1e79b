from django.apps import AppConfig
from django.core.signals import request_finished


class IncidentsConfig(AppConfig):
    name = "portal.incidents"
    label = "incidents"
    verbose_name = "Attention"
    navigation_order = 5

    def ready(self) -> None:
        from portal.incidents.models import Incident
        from portal.incidents.panels import incidents_panel
        from portal.incidents.watch import watch_certificates
        from portal.site.dashboard import register_panel
        from portal.site.subjects import Named, name_subjects

        name_subjects(incident=Named(Incident))
        register_panel(incidents_panel)
        request_finished.connect(lambda **_: watch_certificates(), weak=False, dispatch_uid="watch_certificates")
