"""What consent adds to the admin, in the order in which it is offered."""

from consent.admin import panels
from consent.admin.campaigns import invite_in_campaign
from consent.admin.customer_tenants import figures_of, sync_partners, sync_partners_of
from consent.admin.find_tenant import find
from consent.admin.offboardings import offboard_partners
from consent.admin.partner_tenants import disable_partners, enable_partners
from consent.admin.plans import plan_consent_of_customers, plan_consent_of_partners
from consent.models import (
    ApplicationCredential,
    ApplicationRegistration,
    Campaign,
    ConsentFlow,
    ConsentLink,
    ConsentPlan,
    CustomerConsent,
    Offboarding,
    PartnerConsent,
    WaitingToken,
)
from portal.site.extension_points import AdminExtension, AdminPage
from portal.site.named import Named

_OF_A_CUSTOMER = Named(CustomerConsent, "customer__partner", "registration")

EXTENSION = AdminExtension(
    panels=(
        panels.partners_panel,
        panels.attention_panel,
        panels.credentials_panel,
        panels.ends_panel,
        panels.customers_panel,
        panels.flows_panel,
    ),
    subjects={
        "link": Named(ConsentLink, "partner"),
        "flow": Named(ConsentFlow),
        "campaign": Named(Campaign),
        "consent": Named(PartnerConsent, "partner", "registration"),
        "customer_consent": _OF_A_CUSTOMER,
        "consents": _OF_A_CUSTOMER,
        "waiting": Named(WaitingToken, "consent__partner", "consent__registration"),
        "registration": Named(ApplicationRegistration),
        "offboarding": Named(Offboarding, "partner"),
        "credential": Named(ApplicationCredential, "registration"),
        "plan": Named(ConsentPlan, "registration"),
    },
    partner_pages=(AdminPage(route="find/", name="tenants_partnertenant_find", view=find),),
    partner_actions=(
        disable_partners,
        enable_partners,
        invite_in_campaign,
        sync_partners,
        offboard_partners,
        plan_consent_of_partners,
    ),
    customer_actions=(sync_partners_of, plan_consent_of_customers),
    customer_figures=(figures_of,),
)
