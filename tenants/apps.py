from django.apps import AppConfig
from django.db.models.signals import post_migrate

from portal.search_text import build_index


class TenantsConfig(AppConfig):
    name = "tenants"
    verbose_name = "Tenants"
    navigation_order = 10

    def ready(self) -> None:
        post_migrate.connect(build_index, sender=self)
