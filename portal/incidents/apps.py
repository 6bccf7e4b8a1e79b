from django.apps import AppConfig


class IncidentsConfig(AppConfig):
    name = "portal.incidents"
    label = "incidents"
    verbose_name = "Attention"
    navigation_order = 5

    def ready(self) -> None:
        from portal.incidents.panels import incidents_panel
        from portal.site.dashboard import register_panel

        register_panel(incidents_panel)
