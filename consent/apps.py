from django.apps import AppConfig


class ConsentConfig(AppConfig):
    name = "consent"
    verbose_name = "Consent"
    navigation_order = 20

    def ready(self) -> None:
        from consent import checks  # noqa: F401  # registers its checks
        from consent.admin import panels
        from portal.site.dashboard import register_panel

        for panel in (
            panels.partners_panel,
            panels.attention_panel,
            panels.credentials_panel,
            panels.ends_panel,
            panels.customers_panel,
            panels.flows_panel,
        ):
            register_panel(panel)
        self._add_partner_pages()
        self._name_subjects()
        self._add_kinds_of_runs()

    def _add_kinds_of_runs(self) -> None:
        from consent.runs.apply_plan import APPLY_PLAN
        from consent.runs.customer_sync import CUSTOMER_SYNC
        from consent.runs.push import CUSTOMER_PUSH
        from consent.runs.remove import CONSENT_REMOVE
        from consent.runs.token_check import TOKEN_CHECK
        from consent.runs.verify import CONSENT_VERIFY
        from consent.schedule import register_jobs
        from portal.runs.kinds import register

        for kind in (TOKEN_CHECK, CUSTOMER_SYNC, CUSTOMER_PUSH, CONSENT_VERIFY, CONSENT_REMOVE, APPLY_PLAN):
            register(kind)
        register_jobs()

    def _name_subjects(self) -> None:
        from consent import models
        from consent.models import ApplicationCredential
        from portal.site.subjects import Named, name_subjects

        of_a_customer = Named(models.CustomerConsent, "customer__partner", "registration")
        name_subjects(
            link=Named(models.ConsentLink, "partner"),
            flow=Named(models.ConsentFlow),
            campaign=Named(models.Campaign),
            consent=Named(models.PartnerConsent, "partner", "registration"),
            customer_consent=of_a_customer,
            consents=of_a_customer,
            waiting=Named(models.WaitingToken, "consent__partner", "consent__registration"),
            registration=Named(models.ApplicationRegistration),
            offboarding=Named(models.Offboarding, "partner"),
            credential=Named(ApplicationCredential, "registration"),
            plan=Named(models.ConsentPlan, "registration"),
        )

    def _add_partner_pages(self) -> None:
        from consent.admin.find_tenant import find
        from consent.partners import disable_partners, enable_partners
        from tenants.admin import PartnerPage, partner_actions, partner_pages

        partner_actions.extend([disable_partners, enable_partners])
        partner_pages.append(PartnerPage(route="find/", name="tenants_partnertenant_find", view=find))
