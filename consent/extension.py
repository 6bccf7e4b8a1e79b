"""What consent adds to the admin, in the order in which it is offered."""

from collections.abc import Collection

from django.db.models import Q, QuerySet

from consent.admin import overview
from consent.admin.campaigns import invite_in_campaign
from consent.admin.causes import CAUSES
from consent.admin.consents import by_reference
from consent.admin.containments import banner, stop_partner
from consent.admin.customer_tenants import sync_partners, sync_partners_of
from consent.admin.erasures import erase_partners
from consent.admin.find_tenant import find
from consent.admin.offboardings import offboard_partners
from consent.admin.partner_tenants import check_partners, disable_partners, enable_partners
from consent.admin.plans import plan_consent_of_customers, plan_consent_of_partners
from consent.admin.uses import see_uses
from consent.models import (
    ApplicationCredential,
    ApplicationRegistration,
    Campaign,
    ConsentFlow,
    ConsentLink,
    ConsentPlan,
    Containment,
    CustomerConsent,
    Erasure,
    Offboarding,
    OwnPermissionSet,
    PartnerConsent,
    PartnerImport,
    WaitingToken,
)
from consent.words.actions import ACTIONS
from portal.site.extension_points import AdminExtension, AdminPage, ListEntry
from portal.site.limit_kinds import EVERYBODY, LimitKind, Sight
from portal.site.named import Named
from portal.site.navigation import Section
from portal.site.searchable import Searchable, by_number
from tenants.models import PartnerTenant


def _with_registration(keys: Collection[int]) -> QuerySet[PartnerTenant]:
    """Return the partners that consented to one of these, or were asked to."""
    consents, links = (rows.objects.filter(registration__in=keys) for rows in (PartnerConsent, ConsentLink))
    return PartnerTenant.objects.filter(Q(pk__in=consents.values("partner")) | Q(pk__in=links.values("partner")))


_BY_REGISTRATION = {"registration": "registration"}
_OF_A_CUSTOMER = Named(CustomerConsent, "customer__partner", "registration")

EXTENSION = AdminExtension(
    panels=(
        overview.acting_panel,
        overview.partners_panel,
        overview.customers_panel,
        overview.tokens_panel,
        overview.checks_panel,
        overview.invitations_panel,
        overview.ends_panel,
    ),
    lists=(
        ListEntry(section=Section.PARTNERS, title="Tokens", model="consent.partnerconsent"),
        ListEntry(section=Section.PARTNERS, title="Accounts waiting", model="consent.waitingtoken"),
        ListEntry(section=Section.PARTNERS, title="Offboardings", model="consent.offboarding"),
        ListEntry(section=Section.PARTNERS, title="Token uses", model="consent.tokenuse"),
        ListEntry(section=Section.PARTNERS, title="Erasures", model="consent.erasure"),
        ListEntry(section=Section.PARTNERS, title="Imports", model="consent.partnerimport"),
        ListEntry(section=Section.PARTNERS, title="", model="consent.partnerimportrow"),
        ListEntry(section=Section.CUSTOMERS, title="Consents", model="consent.customerconsent"),
        ListEntry(section=Section.CUSTOMERS, title="History", model="consent.consentobservation"),
        ListEntry(section=Section.INVITATIONS, title="Links", model="consent.consentlink"),
        ListEntry(section=Section.INVITATIONS, title="Campaigns", model="consent.campaign"),
        ListEntry(section=Section.INVITATIONS, title="Attempts", model="consent.consentflow"),
        ListEntry(section=Section.INVITATIONS, title="", model="consent.campaignpartner"),
        ListEntry(section=Section.PLANS, title="Plans", model="consent.consentplan"),
        ListEntry(section=Section.PLANS, title="", model="consent.consentplanitem"),
        ListEntry(section=Section.APPLICATIONS, title="Registrations", model="consent.applicationregistration"),
        ListEntry(section=Section.APPLICATIONS, title="Credentials", model="consent.applicationcredential"),
        ListEntry(section=Section.APPLICATIONS, title="Permission sets", model="consent.ownpermissionset"),
        ListEntry(section=Section.APPLICATIONS, title="Emergency stops", model="consent.containment"),
        ListEntry(
            section=Section.APPLICATIONS,
            title="Doctor",
            model="consent.applicationregistration",
            page="admin:consent_doctor",
        ),
    ),
    banners=(banner,),
    subjects={
        "link": Named(ConsentLink, "partner"),
        "flow": Named(ConsentFlow),
        "campaign": Named(Campaign),
        "consent": Named(PartnerConsent, "partner", "registration"),
        "tokens": Named(PartnerConsent, "partner", "registration"),
        "customer_consent": _OF_A_CUSTOMER,
        "consents": _OF_A_CUSTOMER,
        "waiting": Named(WaitingToken, "consent__partner", "consent__registration"),
        "registration": Named(ApplicationRegistration),
        "offboarding": Named(Offboarding, "partner"),
        "containment": Named(Containment, "registration", "partner"),
        "erasure": Named(Erasure, "partner"),
        "credential": Named(ApplicationCredential, "registration"),
        "permission_set": Named(OwnPermissionSet),
        "plan": Named(ConsentPlan, "registration"),
        "partner_import": Named(PartnerImport),
    },
    causes=CAUSES,
    dangerous=frozenset(
        {
            "consent.add_applicationcredential",
            "consent.promote_applicationcredential",
            "consent.retire_applicationcredential",
            "consent.add_ownpermissionset",
            "consent.change_ownpermissionset",
            "consent.change_applicationregistration",
            "consent.decide_waitingtoken",
            "consent.disconnect_partnerconsent",
            "consent.erase_partner",
            "consent.resume_containment",
            "consent.offboard_partner",
            "consent.remove_customerconsent",
        }
    ),
    audit_words=ACTIONS,
    limits={
        "registration": LimitKind(
            title="Partners of an application", model=ApplicationRegistration, partners=_with_registration
        )
    },
    sights={
        "consent.applicationcredential": Sight(own=_BY_REGISTRATION),
        "consent.applicationregistration": Sight(own={"registration": "pk"}),
        "consent.campaign": Sight(person="created_by__username"),
        "consent.campaignpartner": Sight(partner="partner", own={"registration": "campaign__registration"}),
        "consent.consentflow": Sight(partner="link__partner", own={"registration": "link__registration"}),
        "consent.consentlink": Sight(partner="partner", own=_BY_REGISTRATION),
        "consent.consentobservation": Sight(partner="consent__customer__partner", own=_BY_REGISTRATION),
        "consent.consentplan": Sight(person="created_by"),
        "consent.consentplanitem": Sight(partner="customer__partner", own={"registration": "plan__registration"}),
        "consent.containment": EVERYBODY,
        "consent.customerconsent": Sight(partner="customer__partner", own=_BY_REGISTRATION),
        "consent.erasure": Sight(partner="partner"),
        "consent.offboarding": Sight(partner="partner"),
        "consent.ownpermissionset": EVERYBODY,
        "consent.partnerconsent": Sight(partner="partner", own=_BY_REGISTRATION),
        "consent.partnerimport": Sight(person="created_by"),
        "consent.partnerimportrow": Sight(person="imported__created_by"),
        "consent.tokenuse": Sight(partner="partner", own=_BY_REGISTRATION),
        "consent.waitingtoken": Sight(partner="consent__partner", own={"registration": "consent__registration"}),
    },
    searchable=(
        Searchable(
            title="Reference codes",
            rank=30,
            model=ConsentFlow,
            find=by_reference,
            direct=True,
            related=("link__partner",),
            detail=lambda flow: f"{flow.link.partner}: {flow.get_outcome_display()}",
        ),
        Searchable(
            title="Links",
            rank=40,
            model=ConsentLink,
            find=by_number(ConsentLink, "link", "partner__search_text"),
            related=("partner",),
        ),
        Searchable(
            title="Registrations",
            rank=60,
            model=ApplicationRegistration,
            find=by_number(ApplicationRegistration, "registration", "name", "=application_id"),
        ),
        Searchable(
            title="Campaigns",
            rank=70,
            model=Campaign,
            find=by_number(Campaign, "campaign", "name"),
        ),
        Searchable(
            title="Plans",
            rank=80,
            model=ConsentPlan,
            find=by_number(ConsentPlan, "plan"),
            related=("registration",),
            detail=lambda plan: plan.get_state_display(),
        ),
    ),
    partner_pages=(AdminPage(route="find/", name="tenants_partnertenant_find", view=find),),
    partner_actions=(
        check_partners,
        disable_partners,
        enable_partners,
        invite_in_campaign,
        sync_partners,
        offboard_partners,
        erase_partners,
        plan_consent_of_partners,
        see_uses,
        stop_partner,
    ),
    customer_actions=(sync_partners_of, plan_consent_of_customers),
)
