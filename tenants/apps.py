from django.apps import AppConfig


class TenantsConfig(AppConfig):
    name = "tenants"
    verbose_name = "Tenants"
    navigation_order = 10

    def ready(self) -> None:
        from portal.incidents.desk import PAGES
        from portal.site.dashboard import register_panel
        from tenants.panels import partners_panel

        register_panel(partners_panel)
        PAGES.update(partner="admin:tenants_partnertenant_change", customer="admin:tenants_customertenant_change")
