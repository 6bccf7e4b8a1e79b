"""What the database knows of people (S-70): a new column that can hold a text has to be put on the list of its kind."""

from __future__ import annotations

import re

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db import connection, models

from tests.sandbox.world import User as Account
from tests.support import custody
from tests.support.portal import Browser, Portal

_TEXTS = (models.CharField, models.TextField, models.JSONField, models.GenericIPAddressField, models.BinaryField)
# Table: columns without personal data | columns that may say something of a person: our staff (who did what),
# a partner's contact (name, address, notes, and their changes in the trail), and who signed in (tenant and object id,
# how, what was proven, and the browser's address in the trail).
COLUMNS = """
audit_auditevent: action actor_kind correlation_id mac outcome previous_mac subject | actor address details
auth_group: name
auth_permission: codename name
auth_user:  | email first_name last_name password username
consent_applicationcredential: certificate_request key_id kind public_certificate refused_code secret_name
    secret_version
consent_applicationgrant: resource_application_id scopes
consent_applicationregistration: application_id cloud home_tenant_id kind name permission_set state
consent_campaign: name reason
consent_campaignpartner: last_send_problem
consent_consentflow: binder_hash code correlation_id outcome problem public_id state_hash | checks
consent_consentlink: kind token_hash
consent_consentobservation: added correlation_id evidence grants removed service_principal_id state | actor
    changed_by
consent_consentplan: planned purpose scope state | applied_by created_by
consent_consentplanitem: action before message owner phase reason result snapshot target
consent_containment: halted reason state | began_by resume_asked_by resumed_by
consent_customerconsent: actual_grants failed_owner failed_reason failed_what owner reason request_id requested_hash
    service_principal_id state
    unread_owner unread_reason wanted_hash | changed_by requested_by
consent_dailyfigures: consents customer_counts partners
consent_offboarding: seal seal_key state vault_entries | decided_by report started_by
consent_ownpermissionset: name note permissions
consent_partnerconsent: fingerprint forecast_cause granted_scopes last_class last_code last_message last_owner
    last_problem lease_owner mfa replaced_version secret_name secret_version state | amr checks pinned_oid
consent_registrationevidence: refusal source unread_reason known_owners | asked_by seen seen_by
consent_partnerimport:  | applied_by created_by file_name
consent_partnerimportrow: cloud domain found_cloud found_tenant_id kind name problem result tag_names tenant_id why
    | confirmed_by contact_addresses notes
consent_tokenuse: actor_kind audience correlation_id purpose | actor address
consent_vaultpairing: vault_id
consent_waitingtoken: decision fingerprint mfa secret_name secret_version | checks decided_by object_id
consent_wantedgrants: grants grants_hash | created_by
dj_queue_blocked_executions: backend_alias concurrency_key queue_name
dj_queue_failed_executions: exception_class message traceback
dj_queue_jobs: backend_alias concurrency_key concurrency_on_conflict payload queue_name return_value task_path
dj_queue_pauses: backend_alias queue_name
dj_queue_processes: backend_alias hostname kind metadata name
dj_queue_ready_executions: backend_alias queue_name
dj_queue_recurring_executions: backend_alias task_key
dj_queue_recurring_tasks: backend_alias description key payload queue_name schedule task_path
dj_queue_scheduled_executions: backend_alias queue_name
dj_queue_semaphores: key
django_admin_log: object_id | change_message object_repr
django_content_type: app_label model
django_session: session_key | session_data
incidents_incident: about cause name owner subject words | seen_by snoozed_by
incidents_incidentnote:  | by words
portal_requestcount: key
portal_spentform: number
portal_site_chosencolumns: columns list_name
portal_site_savedfilter: list_name | name query
runs_executor: host
runs_ratebucket: name
runs_run: actor_kind kind options reason scope scope_hash state | actor
runs_runitem: code correlation_id failure_class label message owner state
runs_scheduledjob: last_result name owner
tenants_customertenant: company_name domain partner_center_id readiness readiness_owner readiness_reason
    relationship search_text tenant_id
tenants_gdapaccessassignment: assignment_id group_id roles status
tenants_gdaprelationship: auto_extend_duration customer_tenant_id display_name relationship_id roles status
tenants_partnertag: name
tenants_partnercontact:  | email name role
tenants_partnertenant: cloud domain kind name switch tenant_id | notes search_text
"""


def listed() -> dict[str, tuple[set[str], set[str]]]:
    """Return (columns without, columns with personal data) by table."""
    found = {}
    for line in re.sub(r"\n +", " ", COLUMNS.strip()).splitlines():
        table, _, columns = line.partition(":")
        others, _, personal = columns.partition("|")
        found[table] = (set(others.split()), set(personal.split()))
    return found


@pytest.mark.req("S-70")
def test_each_column_that_can_hold_a_text_is_listed_as_personal_or_not() -> None:
    lists = listed()
    columns = {
        f"{model._meta.db_table}.{field.column}"
        for model in apps.get_models(include_auto_created=True)
        for field in model._meta.concrete_fields
        if isinstance(field, _TEXTS)
    }
    known = {f"{table}.{column}" for table, (others, personal) in lists.items() for column in others | personal}
    assert sorted(columns - known) == [], "say in COLUMNS whether it may hold something of a person"
    assert sorted(known - columns) == [], "no longer there"
    assert [table for table, (others, personal) in lists.items() if others & personal] == []


def holders(word: str) -> set[str]:
    """Return table and column of every value of the database that contains this word, as capitals or not."""
    found = set()
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")  # noqa: S608  # the database's own names
            names = [column[0] for column in cursor.description]
            for row in cursor.fetchall():
                found |= {
                    f"{table}.{name}" for name, value in zip(names, row, strict=True) if word in str(value).lower()
                }
    return found


def sign_in(portal: Portal) -> Account:
    """Let the service account sign in from an address of its own, and return it."""
    person = Browser()
    person.defaults["REMOTE_ADDR"] = "198.51.100.77"
    assert portal.onboard(person).status_code == 200
    account: Account = custody.service_account(portal)
    return account


@pytest.mark.req("S-70")
def test_of_who_signs_in_neither_name_nor_address_is_kept(portal: Portal) -> None:
    User.objects.create_user("staff")
    account = sign_in(portal)
    custody.ask(portal.consent(), fresh=True)

    assert holders("staff"), "the search finds nothing"
    assert (holders(account.upn.lower()), holders(account.name.lower())) == (set(), set())
    known = holders(account.oid) | holders("198.51.100.77")
    assert known >= {"consent_partnerconsent.pinned_oid", "audit_auditevent.address"}
    personal = {f"{table}.{column}" for table, (_, columns) in listed().items() for column in columns}
    assert known <= personal
