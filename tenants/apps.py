from django.apps import AppConfig


class TenantsConfig(AppConfig):
    name = "tenants"
    verbose_name = "Tenants"
    navigation_order = 10

    def ready(self) -> None:
        from portal.site.subjects import Named, name_subjects
        from tenants.models import CustomerTenant, PartnerTag, PartnerTenant

        name_subjects(
            tag=Named(PartnerTag),
            partner=Named(PartnerTenant),
            customer=Named(CustomerTenant),
            customers=Named(CustomerTenant),
        )
