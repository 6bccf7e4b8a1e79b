"""By what right we act: registrations, links, flows, tokens, and consents of customers. Each noun has its module.

No row holds a secret: tokens and credentials are in the vault, everything else that must be recognised again is
stored as a SHA-256 (S-01, S-06, S-07, S-30).
"""

from consent.models.applications import ApplicationCredential as ApplicationCredential
from consent.models.applications import ApplicationGrant as ApplicationGrant
from consent.models.applications import ApplicationRegistration as ApplicationRegistration
from consent.models.containments import Containment as Containment
from consent.models.customers import Attempt as Attempt
from consent.models.customers import ChangedBy as ChangedBy
from consent.models.customers import ConsentObservation as ConsentObservation
from consent.models.customers import CustomerConsent as CustomerConsent
from consent.models.customers import UnreadCustomer as UnreadCustomer
from consent.models.erasures import Erasure as Erasure
from consent.models.figures import DailyFigures as DailyFigures
from consent.models.invitations import Campaign as Campaign
from consent.models.invitations import CampaignPartner as CampaignPartner
from consent.models.invitations import ConsentFlow as ConsentFlow
from consent.models.invitations import ConsentLink as ConsentLink
from consent.models.moving_in import PartnerImport as PartnerImport
from consent.models.moving_in import PartnerImportRow as PartnerImportRow
from consent.models.offboardings import Offboarding as Offboarding
from consent.models.permission_sets import OwnPermissionSet as OwnPermissionSet
from consent.models.plans import ConsentPlan as ConsentPlan
from consent.models.plans import ConsentPlanItem as ConsentPlanItem
from consent.models.plans import WantedGrants as WantedGrants
from consent.models.setup import RegistrationEvidence as RegistrationEvidence
from consent.models.tokens import PartnerConsent as PartnerConsent
from consent.models.tokens import WaitingToken as WaitingToken
from consent.models.uses import TokenUse as TokenUse
from consent.models.vault import VaultPairing as VaultPairing
