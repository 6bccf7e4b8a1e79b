"""Take each of the most important guards out of a copy of the tree and see its test fail (S-75).

    python -m tests.guards              all guards, two at a time; minutes, not seconds
    python -m tests.guards nonce iss    these only

Exit codes: 0 each test passes with the guard and fails without it, 1 some does not, 2 no such guard, 3 the tests fail
with all guards in place, so nothing is shown.

A guard is a text of the source that stands there exactly once, and what stands there when it is gone. The suite checks
that each text is still found (tests/test_guards.py), so that this list cannot rot.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.guards_of_custody import CUSTODY_GUARDS
from tests.guards_of_staff import STAFF_GUARDS
from tests.support.guard import Guard

ROOT = Path(__file__).resolve().parents[1]
_AT_ONCE = 2
_SECONDS = 240  # for the tests of one guard; without a guard a browser may wait for what never comes
_NOT_SOURCE = ("__pycache__", "screenshots", "static-collected", "node_modules")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+::\S+?)(?:\[| - |$)", re.MULTILINE)  # an error is a fixture that failed


class NotFound(Exception):
    """The text of a guard is not in the source exactly once: the list must follow the code."""


_REFUSALS = "tests/consent/sign_in/test_refusals.py::"
_AWAY = f"{_REFUSALS}test_what_ends_while_the_person_is_at_microsoft_is_not_redeemed"
_ROLES = "tests/portal/staff/test_roles.py::"
_TEAMS = "tests/portal/staff/test_teams.py::"
_BENT = "tests/consent/microsoft/test_id_tokens.py::test_a_bent_id_token_is_refused_with_its_own_word"
_BENT_FLOW = "tests/consent/sign_in/test_id_tokens_in_flows.py::test_a_bent_id_token_ends_the_flow_with_nothing_stored"
_LATE = "tests/consent/tokens/test_service.py::test_"
_APPROVALS = "tests/consent/sign_in/test_approvals.py::"
_DATABASE = "tests/consent/sign_in/test_database_down.py::"
_AUDIT = "tests/portal/audit/test_trail.py::"
_DAMAGE = "tests/portal/audit/test_damage.py::"
_SITES = "tests/browser/test_other_sites.py::"

_CONTAINED = "tests/consent/containment/test_service.py::"
_LAST_LOOK = "tests/portal/microsoft/test_last_look.py::"
_TOKENS_BROUGHT = "tests/consent/moving_in/test_tokens.py::test_"
_PARTNERS_BROUGHT = "tests/consent/moving_in/test_partners.py::test_"
_PROOF = "tests/portal/site/test_proof.py::test_"
_DECISIONS = "tests/portal/decisions/test_service.py::test_"
_BY_TWO = "tests/consent/test_two_persons.py::test_"

_STAFF_BENT = "tests/portal/staff/test_directory.py::test_a_bent_id_token_is_refused_with_its_own_word"
_STAFF_ENDED = (
    "tests/portal/staff/test_sessions.py::"
    "test_a_change_of_rights_or_password_ends_all_sessions_of_the_account_and_no_other"
)

GUARDS = (
    Guard(
        name="cookie-compare",
        shows="S-07",
        file="consent/sign_in/flow.py",
        text="if not hmac.compare_digest(flow.binder_hash, sha256(binder)):",
        without="if False:",
        tests=(
            f"{_REFUSALS}test_another_browser_cannot_finish_a_flow_and_does_not_burn_it",
            f"{_SITES}test_another_browser_cannot_finish_and_does_not_spoil_it",
        ),
    ),
    Guard(
        name="claim-condition",
        shows="S-09",
        file="consent/models/invitations.py",
        text="            claimed_at__isnull=True,\n            expires_at__gt=Now(),\n",
        without="            expires_at__gt=Now(),\n",
        tests=(
            "tests/consent/sign_in/test_parallel_posts.py::test_a_claim_has_exactly_one_winner",
            "tests/browser/test_flows.py::test_reloading_result_and_callback_changes_nothing",
        ),
    ),
    Guard(
        name="expiry",
        shows="S-10",
        file="consent/models/invitations.py",
        text="            claimed_at__isnull=True,\n            expires_at__gt=Now(),\n",
        without="            claimed_at__isnull=True,\n",
        tests=(f"{_AWAY}[flow expired]",),
    ),
    Guard(
        name="link-active",
        shows="S-10",
        file="consent/models/invitations.py",
        text="            revoked_at__isnull=True,\n            expires_at__gt=Now(),\n            registration",
        without="            expires_at__gt=Now(),\n            registration",
        tests=(f"{_AWAY}[link revoked]",),
    ),
    Guard(
        name="partner-active",
        shows="S-10",
        file="consent/models/invitations.py",
        text="            partner__switch=PartnerTenant.Switch.ON,\n            revoked_at",
        without="            revoked_at",
        tests=(f"{_AWAY}[partner disabled]",),
    ),
    Guard(
        name="pkce-verifier",
        shows="S-11",
        file="consent/microsoft/entra.py",
        text='            "code_challenge": code_challenge,\n            "code_challenge_method": "S256",\n',
        without="",
        tests=(f"{_REFUSALS}test_state_verifier_nonce_and_cookie_are_in_no_table",),
    ),
    Guard(
        name="nonce",
        shows="S-12",
        file="consent/microsoft/id_tokens.py",
        text="        if nonce is not None:\n",
        without="        if False:\n",
        tests=(f"{_BENT_FLOW}[nonce of nobody]", f"{_BENT}[nonce of another flow]"),
    ),
    Guard(
        name="signature",
        shows="S-14",
        file="consent/microsoft/id_tokens.py",
        text='jwt.PyJWS().decode(text, key, algorithms=["RS256"])',
        without='jwt.PyJWS().decode(text, options={"verify_signature": False})',
        tests=(f"{_BENT_FLOW}[bad signature]", f"{_BENT}[a stranger's signature under our kid]"),
    ),
    Guard(
        name="iss",
        shows="S-14",
        file="consent/microsoft/id_tokens.py",
        text='if issuer not in [issuer_template.replace("{tenantid}", written) for written in (tenant_id, tid)]:',
        without="if False:",
        tests=(f"{_BENT}[issuer of another tenant]",),
    ),
    Guard(
        name="aud",
        shows="S-14",
        file="consent/microsoft/id_tokens.py",
        text='if str(claims.get("aud")).lower() != application_id:',
        without="if False:",
        tests=(f"{_BENT_FLOW}[audience]", f"{_BENT}[audience missing]"),
    ),
    Guard(
        name="tid",
        shows="S-14",
        file="consent/microsoft/id_tokens.py",
        text="    if tid.lower() != tenant_id:\n",
        without="    if False:\n",
        tests=(f"{_BENT}[tid of another tenant under our issuer]", f"{_BENT_FLOW}[tid of another tenant]"),
    ),
    Guard(
        name="oid-pin",
        shows="S-15",
        file="consent/tokens/custody.py",
        text="if consent.pinned_oid not in {new.object_id, replaces}:",
        without="if False:",
        tests=(
            f"{_APPROVALS}test_another_account_waits_under_its_own_name_and_the_working_token_stays",
            f"{_APPROVALS}test_two_flows_of_one_link_with_a_stall_between_pin_one_account_and_the_other_waits",
        ),
    ),
    Guard(
        name="guid-pattern",
        shows="S-26",
        file="portal/microsoft/identifiers.py",
        text="if not _CANONICAL.fullmatch(candidate) or candidate == NIL_GUID:",
        without="if candidate == NIL_GUID:",
        tests=("tests/consent/admin/test_find_tenant.py::test_what_is_no_tenant_id_is_refused_by_the_form",),
    ),
    Guard(
        name="redirect-following",
        shows="S-26",
        file="portal/microsoft/http.py",
        text="response = adapter.send(request,",
        without="response = super().send(request,",
        tests=("tests/portal/microsoft/test_http.py::test_a_redirect_is_not_followed_and_the_token_stays_here",),
    ),
    Guard(
        name="customer-list",
        shows="S-52",
        file="consent/customers/consents.py",
        text="if customer.missing_since is not None:\n        raise PushRefused(",
        without="if False:\n        raise PushRefused(",
        tests=(
            "tests/consent/customers/test_consents.py::test_a_push_outside_the_lines_is_refused_before_any_call_and_audited",
        ),
    ),
    Guard(
        name="lookup-allowed",
        shows="S-35",
        file="portal/site/admin.py",
        text="        return any(lookup in self._lookups_of(name) for name in names)",
        without="        return True",
        tests=("tests/portal/site/test_admin.py::test_a_lookup_that_no_filter_declares_is_refused",),
    ),
    Guard(
        name="audit-trigger",
        shows="S-56",
        file="portal/audit/triggers.py",
        text="    for statement in _CREATE[schema_editor.connection.vendor]:",
        without="    for statement in ():",
        tests=("tests/portal/audit/test_trail.py::test_the_database_itself_refuses_raw_sql",),
    ),
    Guard(
        name="lease-owner",
        shows="R-03",
        file="consent/tokens/saving.py",
        text="            lease_owner=of_row(lambda renewal: renewal.owner),\n",
        without="",
        tests=(f"{_LATE}a_late_version_that_nobody_can_decide_about_is_left_to_the_next_renewal[local]",),
    ),
    Guard(
        name="generation-compare",
        shows="R-03",
        file="consent/tokens/saving.py",
        text="            generation=of_row(lambda renewal: renewal.consent.generation),\n",
        without="",
        tests=(f"{_LATE}a_pointer_that_moved_under_the_same_lease_is_not_overwritten[local]",),
    ),
    Guard(
        name="redaction-type",
        shows="S-31",
        file="portal/microsoft/secret.py",
        text="        return _MASK\n\n    __str__ = __repr__",
        without="        return self.reveal()\n\n    __str__ = __repr__",
        tests=("tests/portal/microsoft/test_secret.py::test_what_gives_a_text_shows_the_mask_at_most",),
    ),
    # Beyond the twenty of S-75.
    Guard(
        name="callback-issuer",
        shows="S-19",
        file="consent/sign_in/flow.py",
        text="if list(issuers) != [validator.issuer(cloud, flow.link.partner.tenant)]:",
        without="if False:",
        tests=("tests/consent/sign_in/test_hostile_callbacks.py::test_only_the_flows_own_issuer_is_taken",),
    ),
    Guard(
        name="profile-tenant",
        shows="S-18",
        file="consent/sign_in/proof.py",
        text="    if profile.tenant_id != partner.tenant:\n",
        without="    if False:\n",
        tests=(f"{_REFUSALS}test_a_profile_of_another_tenant_refuses_the_flow_and_stores_nothing",),
    ),
    Guard(
        name="proven-account",
        shows="S-17",
        file="consent/sign_in/proof.py",
        text="    if object_id is not None and identity.object_id != object_id:\n",
        without="    if False:\n",
        tests=(
            f"{_REFUSALS}test_a_refresh_token_of_another_account_of_the_tenant_than_the_one_that_signed_in_is_not_kept",
        ),
    ),
    Guard(
        name="chain-order",
        shows="S-57",
        file="portal/audit/walking.py",
        text="event.sequence == at.sequence + 1 and event.previous_mac == at.mac",
        without="event.sequence == at.sequence + 1",
        tests=(f"{_AUDIT}test_a_splice_of_two_genuine_chains_shows_although_each_entry_has_its_true_mac",),
    ),
    Guard(
        name="trail-end",
        shows="S-57",
        file="portal/audit/anchors.py",
        text="    if highest.sequence <= last:\n",
        without="    if True:\n",
        tests=(f"{_DAMAGE}test_damage_of_the_entries_is_found_and_named",),
    ),
    Guard(
        name="archive-mark",
        shows="S-57",
        file="portal/audit/walking.py",
        text="        if is_genuine(mark):\n",
        without="        if True:\n",
        tests=("tests/portal/audit/test_archive.py::test_a_forged_mark_hides_nothing",),
    ),
    Guard(
        name="foreign-trigger",
        shows="S-56",
        file="portal/audit/table.py",
        text="    if foreign := there - wanted:\n",
        without="    if foreign := wanted - wanted:\n",
        tests=(f"{_DAMAGE}test_triggers_that_were_dropped_replaced_switched_off_or_added_are_found",),
    ),
    Guard(
        name="run-digest",
        shows="S-57",
        file="portal/runs/results.py",
        text="        elif digest_of(run_id) != sealed:\n",
        without="        elif False:\n",
        tests=("tests/portal/runs/test_results.py::test_a_result_that_was_changed_taken_out_or_added_is_found",),
    ),
    Guard(
        name="user-part",
        shows="S-26",
        file="portal/microsoft/http.py",
        text=' or "@" in parts.netloc',
        without="",
        tests=("tests/portal/microsoft/test_http.py::test_a_user_part_is_refused_whatever_the_list_of_hosts_says",),
    ),
    # What only a browser can show.
    Guard(
        name="same-site-none",
        shows="S-07",
        file="consent/views.py",
        text='samesite="None"',
        without='samesite="Lax"',
        tests=("tests/browser/test_flows.py::test_a_partner_connects_and_the_browser_holds_one_bound_cookie",),
    ),
    Guard(
        name="host-prefix",
        shows="S-62",
        file="consent/views.py",
        text='COOKIE = "__Host-cpv-flow-token"',
        without='COOKIE = "cpv-flow-token"',
        tests=("tests/consent/sign_in/test_hostile_answers.py::test_the_flow_cookie_has_the_promised_shape",),
    ),
    Guard(
        name="frame-ancestors",
        shows="S-61",
        file="portal/site/policy.py",
        text="SITE_POLICY: Policy = _policy(frame_ancestors=CSP.NONE)",
        without="SITE_POLICY: Policy = _policy()",
        tests=(f"{_SITES}test_no_site_can_frame_the_landing_page[with our headers]",),
    ),
    Guard(
        name="fetch-destination",
        shows="S-20",
        file="consent/views.py",
        text='if request.headers.get("Sec-Fetch-Dest", "document") != "document":',
        without="if False:",
        tests=(f"{_SITES}test_an_answer_posted_into_a_frame_is_refused_although_the_cookie_arrives",),
    ),
    Guard(
        name="origin",
        shows="S-20",
        file="consent/views.py",
        text='if request.headers.get("Origin", "null") not in own_origins:',
        without="if False:",
        tests=(f"{_SITES}test_an_answer_posted_by_a_foreign_site_is_refused",),
    ),
    Guard(
        name="code-not-spent",
        shows="R-37",
        file="consent/views.py",
        text="        except DatabaseError:  # the code is spent: sending it again would not help",
        without="        except ZeroDivisionError:",
        tests=(
            "tests/consent/sign_in/test_database_down.py::test_a_database_lost_between_code_and_record_is_not_called_harmless",
        ),
    ),
    Guard(
        name="imported-mfa",
        shows="S-18",
        file="consent/moving_in/tokens.py",
        text="    if proven.mfa is Mfa.MISSING:",
        without="    if False:",
        tests=(f"{_TOKENS_BROUGHT}each_way_of_being_bad_has_its_reason_and_stores_nothing",),
    ),
    Guard(
        name="imported-permissions",
        shows="S-17",
        file="consent/moving_in/tokens.py",
        text="    if found.missing:",
        without="    if False:",
        tests=(f"{_TOKENS_BROUGHT}each_way_of_being_bad_has_its_reason_and_stores_nothing",),
    ),
    Guard(
        name="imported-lease",
        shows="R-03",
        file="consent/runs/import_tokens.py",
        text="    if consent is not None and not PartnerConsent.objects.lease_free().filter(pk=consent.pk).exists():",
        without="    if False:",
        tests=(f"{_TOKENS_BROUGHT}a_partner_whose_token_another_process_keeps_is_waited_for_and_redeems_nothing",),
    ),
    Guard(
        name="imported-disconnected",
        shows="S-53",
        file="consent/moving_in/tokens.py",
        text="    if consent.state in PartnerConsent.LEFT_STATES:",
        without="    if False:",
        tests=(f"{_TOKENS_BROUGHT}who_is_disconnected_stopped_disabled_or_elsewhere_is_left_as_it_is",),
    ),
    Guard(
        name="other-vaults-address",
        shows="S-26",
        file="consent/clients.py",
        text='    if not re.fullmatch(rf"https://[0-9A-Za-z-]+{re.escape(suffix)}", address):',
        without="    if False:",
        tests=(f"{_TOKENS_BROUGHT}no_other_address_than_that_of_a_key_vault_is_asked",),
    ),
    Guard(
        name="found-tenant-confirmed",
        shows="S-04",
        file="consent/moving_in/partners.py",
        text="        row.found_tenant_id, row.found_cloud, row.result = tenant_id, cloud, Result.TO_CONFIRM",
        without="        row.tenant_id, row.cloud, row.result = tenant_id, cloud, Result.NEW",
        tests=(f"{_PARTNERS_BROUGHT}a_domains_tenant_is_found_in_a_run_and_counts_only_when_a_person_confirmed_it",),
    ),
    Guard(
        name="workbook-document-type",
        shows="S-64",
        file="consent/moving_in/files.py",
        text="        parser.StartDoctypeDeclHandler = _refuse_document_type",
        without="        pass",
        tests=(f"{_PARTNERS_BROUGHT}a_workbook_that_unfolds_or_declares_entities_is_not_opened",),
    ),
    Guard(
        name="workbook-unpacked",
        shows="S-64",
        file="consent/moving_in/files.py",
        text="sum(part.file_size for part in parts) > _MOST_UNPACKED",
        without="False",
        tests=(f"{_PARTNERS_BROUGHT}a_workbook_that_unfolds_or_declares_entities_is_not_opened",),
    ),
    Guard(
        name="import-permission",
        shows="S-48",
        file="consent/admin/imports.py",
        text='all(request.user.has_perm(f"tenants.{right}_partnertenant") for right in ("add", "change"))',
        without="True",
        tests=("tests/consent/admin/test_imports.py::test_who_may_not_add_partners_sees_no_import",),
    ),
    Guard(
        name="contained",
        shows="S-80",
        file="consent/tokens/service.py",
        text="            raise Contained(stop.words)",
        without="            pass",
        tests=(f"{_CONTAINED}test_no_token_is_handed_out_not_even_a_cached_one[all]",),
    ),
    Guard(
        name="contained-late-answer",
        shows="S-80",
        file="consent/tokens/service.py",
        text="            self.check(consent)  # it may have begun while the answer was on its way\n",
        without="",
        tests=(f"{_CONTAINED}test_an_answer_that_comes_after_the_stop_is_not_handed_out",),
    ),
    Guard(
        name="contained-unknown",
        shows="S-80",
        file="consent/containment/gate.py",
        text="            return Contained(UNKNOWN, goes_back=True)",
        without="            return None",
        tests=("tests/consent/containment/test_gate.py::test_when_the_database_stops_answering_the_gate_closes",),
    ),
    Guard(
        name="last-look",
        shows="S-80",
        file="portal/microsoft/http.py",
        text="            may_send()\n",
        without="            pass\n",
        tests=(f"{_LAST_LOOK}test_a_request_is_kept_back_at_the_last_moment_and_the_next_one_leaves",),
    ),
    Guard(
        name="resume-two-persons",
        shows="S-80",
        file="portal/decisions/service.py",
        text="    if (own or _is_of(decision, name)) and not settings.STAFF_SINGLE_PERSON:",
        without="    if False:",
        tests=(
            f"{_CONTAINED}test_one_person_alone_does_not_resume_neither_in_the_admin_nor_there_and_on_the_server",
            f"{_CONTAINED}test_who_asked_on_the_server_does_not_approve_it_in_the_admin",
            f"{_DECISIONS}who_asked_cannot_approve_not_even_as_superuser",
        ),
    ),
    Guard(
        name="use-noted",
        shows="S-81",
        file="consent/tokens/service.py",
        text="        self.uses.note(use)\n",
        without="",
        tests=("tests/consent/uses/test_book.py::test_a_token_that_proves_nothing_stands_there_all_the_same",),
    ),
    *CUSTODY_GUARDS,
    *STAFF_GUARDS,
    Guard(
        name="fresh-proof",
        shows="S-49",
        file="portal/site/proof.py",
        text="    return seconds is not None and 0 <= seconds <= within",
        without="    return True",
        tests=(f"{_PROOF}what_is_sent_too_late_is_not_done_and_is_sent_again_after_the_proof",),
    ),
    Guard(
        name="proof-of-who-decides",
        shows="S-49",
        file="portal/decisions/service.py",
        text="    if person.proven is None or not 0 <= person.proven <= WITHIN:",
        without="    if False:",
        tests=(f"{_DECISIONS}without_a_fresh_proof_nothing_is_approved_or_refused",),
    ),
    Guard(
        name="own-request",
        shows="S-50",
        file="portal/decisions/service.py",
        text="own=asked_by(decision, account))",
        without="own=False)",
        tests=(f"{_DECISIONS}a_new_name_of_the_account_makes_no_other_person",),
    ),
    Guard(
        name="approval-of-exactly-this",
        shows="S-50",
        file="portal/decisions/service.py",
        text="    same = kind.digest(decision.parameters, now) == decision.digest",
        without="    same = True",
        tests=(f"{_DECISIONS}what_would_do_something_else_now_is_refused_with_the_difference",),
    ),
    Guard(
        name="sealed-request",
        shows="S-50",
        file="portal/decisions/records.py",
        text='    return fits(_request(decision), Seal(key_id="", value=decision.seal))',
        without="    return True",
        tests=(f"{_DECISIONS}a_row_that_was_changed_past_the_portal_approves_nothing_and_is_an_incident",),
    ),
    Guard(
        name="sealed-approval",
        shows="S-50",
        file="portal/decisions/doing.py",
        text="    if not is_approval_genuine(decision):",
        without="    if False:",
        tests=(f"{_DECISIONS}an_approval_that_only_stands_in_the_row_is_none",),
    ),
    Guard(
        name="done-once",
        shows="S-50",
        file="portal/decisions/doing.py",
        text="    if not mine.update(started_at=now):",
        without="    if mine.update(started_at=now) < 0:",
        tests=(f"{_DECISIONS}it_is_decided_once_and_done_once",),
    ),
    Guard(
        name="removed-from-many",
        shows="S-50",
        file="consent/runs/apply_plan.py",
        text="            if tenants > 1:",
        without="            if False:",
        tests=(f"{_BY_TWO}from_more_than_one_customer_nothing_is_removed_without_an_approval",),
    ),
    Guard(
        name="plan-that-removes-from-many",
        shows="S-50",
        file="consent/runs/apply_plan.py",
        text="        if approved is None and (tenants := removes_from(plan)) > 1:",
        without="        if (tenants := 0):",
        tests=(f"{_BY_TWO}a_plan_that_removes_from_more_than_one_customer_is_not_applied_without_an_approval",),
    ),
    Guard(
        name="staff-factor",
        shows="S-46",
        file="portal/staff/middleware.py",
        text="if not settings.STAFF_PASSWORD_ALONE and sessions.method_of(request) in {None, Method.PASSWORD}:",
        without="if False:",
        tests=("tests/portal/staff/test_sign_in.py::test_a_session_without_a_factor_is_ended",),
    ),
    Guard(
        name="staff-factor-asked",
        shows="S-46",
        file="portal/staff/views.py",
        text="if method is None and signing_in.needs_factor(user):",
        without="if False:",
        tests=("tests/portal/staff/test_sign_in.py::test_password_and_code_of_the_app_let_in_and_the_trail_says_so",),
    ),
    Guard(
        name="staff-code-once",
        shows="S-46",
        file="portal/staff/factors.py",
        text=' or not _spend(f"totp {user.pk} {code}", _CODE_SECONDS):\n        return False',
        without=":\n        return False",
        tests=("tests/portal/staff/test_sign_in.py::test_a_code_is_good_once",),
    ),
    Guard(
        name="staff-waits",
        shows="S-46",
        file="portal/staff/attempts.py",
        text="        if waits and row.free_at > now:",
        without="        if False:",
        also=(("    if row is not None:\n        raise _turned_away(row)", "    del row"),),
        tests=("tests/portal/staff/test_attempts.py::test_a_thousand_wrong_passwords_of_three_hundred_addresses",),
    ),
    Guard(
        name="staff-device",
        shows="S-46",
        file="portal/staff/devices.py",
        text='return str(said["device"]) if said["user"] == user.pk else ""',
        without='return ""',
        tests=("tests/portal/staff/test_attempts.py::test_a_thousand_wrong_passwords_of_three_hundred_addresses",),
    ),
    Guard(
        name="staff-nonce",
        shows="S-46",
        file="portal/staff/oidc.py",
        text="not hmac.compare_digest(said, nonce.reveal())",
        without="False",
        tests=("tests/portal/staff/test_directory.py::test_a_nonce_of_an_earlier_sign_in_is_refused",),
    ),
    Guard(
        name="staff-tenant",
        shows="S-46",
        file="portal/staff/oidc.py",
        text='if self.provider.tenant and str(claims.get("tid")).lower() != self.provider.tenant:',
        without="if False:",
        tests=(f"{_STAFF_BENT}[another tenant]",),
    ),
    Guard(
        name="staff-audience",
        shows="S-46",
        file="portal/staff/oidc.py",
        text="if audience not in (self.provider.client_id, [self.provider.client_id]):",
        without="if False:",
        tests=(f"{_STAFF_BENT}[another audience]",),
    ),
    Guard(
        name="staff-algorithm",
        shows="S-46",
        file="portal/staff/oidc.py",
        text='if header.get("alg") != "RS256":',
        without="if False:",
        tests=(f"{_STAFF_BENT}[unsigned]",),
    ),
    Guard(
        name="staff-mfa",
        shows="S-46",
        file="portal/staff/oidc.py",
        text="if self.provider.mfa and self.provider.mfa[1] not in _texts(claims, self.provider.mfa[0]):",
        without="if False:",
        tests=("tests/portal/staff/test_directory.py::test_a_sign_in_without_mfa_is_refused_where_it_is_demanded",),
    ),
    Guard(
        name="staff-role",
        shows="S-46",
        file="portal/staff/directory.py",
        text="    if not groups:\n",
        without="    if False:\n",
        tests=(
            "tests/portal/staff/test_directory.py::test_who_has_no_role_is_told_who_must_act_and_leaves_no_account",
        ),
    ),
    Guard(
        name="staff-trip-browser",
        shows="S-46",
        file="portal/staff/directory.py",
        text='if not hmac.compare_digest(trip["binder"], digest):',
        without="if False:",
        tests=("tests/portal/staff/test_directory.py::test_an_answer_works_once_and_only_in_the_browser_that_began",),
    ),
    Guard(
        name="staff-link-once",
        shows="S-46",
        file="portal/staff/accounts.py",
        text="links.filter(token_hash=_hash(token), used_at=None, expires_at__gt=timezone.now())",
        without="links.filter(token_hash=_hash(token))",
        tests=("tests/portal/staff/test_accounts.py::test_a_link_ends_after_an_hour_and_a_newer_one_replaces_it",),
    ),
    Guard(
        name="staff-session-end",
        shows="S-47",
        file="portal/staff/receivers.py",
        text="    if why is not None:\n        sessions.end_all(instance, why=why)",
        without="    pass",
        tests=(f"{_STAFF_ENDED}[superuser]",),
    ),
    Guard(
        name="staff-own-sessions",
        shows="S-47",
        file="portal/staff/sessions.py",
        text="    rows = StaffSession.objects.of(user).filter(session_id__in=keys)",
        without="    rows = StaffSession.objects.filter(session_id__in=keys)",
        tests=("tests/portal/staff/test_sessions.py::test_nobody_ends_the_session_of_somebody_else_by_its_key",),
    ),
    Guard(
        name="right",
        shows="S-48",
        file="portal/rights.py",
        text="        if actor.may(right):\n",
        without="        if True:\n",
        tests=(
            "tests/test_services.py::test_a_service_refuses_whoever_has_no_right_before_it_looks_at_anything",
            f"{_ROLES}test_a_refusal_names_the_right_and_who_gives_it_and_stands_in_the_trail",
        ),
    ),
    Guard(
        name="own roles",
        shows="S-48",
        file="portal/staff/roles.py",
        text="    if giver.pk == person.pk:\n",
        without="    if False:\n",
        tests=(f"{_ROLES}test_nobody_changes_own_roles_not_even_downwards",),
    ),
    Guard(
        name="role above",
        shows="S-48",
        file="portal/staff/roles.py",
        text="if role not in before and _RANK[role] > highest",
        without="if role not in before and False",
        tests=(f"{_ROLES}test_nobody_gives_a_role_above_the_own_or_touches_who_stands_above",),
    ),
    Guard(
        name="team",
        shows="S-48",
        file="portal/site/sight.py",
        text="    if limits is None:\n        return rows\n",
        without="    return rows\n",
        tests=(
            f"{_TEAMS}test_lists_show_what_belongs_to_the_partners_of_the_team",
            f"{_TEAMS}test_what_is_chosen_widely_reaches_the_partners_of_the_team_only",
        ),
    ),
    Guard(
        name="row of another team",
        shows="S-48",
        file="portal/site/sight.py",
        text="    for row in rows if limits is not None else ():\n",
        without="    for row in ():\n",
        tests=(f"{_TEAMS}test_a_service_does_nothing_for_another_partner_and_the_trail_says_so",),
    ),
)


def removed(guard: Guard, root: Path = ROOT) -> str:
    """Return the source of the guard's file as it is without the guard.

    Raises:
        NotFound: the text is not there, or more than once.
    """
    source = (root / guard.file).read_text(encoding="utf-8")
    for text, without in ((guard.text, guard.without), *guard.also):
        if (count := source.count(text)) != 1:
            raise NotFound(f"{guard.name}: {guard.file} holds the guard's text {count} times instead of once")
        source = source.replace(text, without)
    return source


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.guards", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="guard", help="only these; all without a name")
    names = parser.parse_args(arguments).names
    chosen = [guard for guard in GUARDS if not names or guard.name in names]
    if unknown := sorted(set(names) - {guard.name for guard in GUARDS}):
        print(f"No such guard: {', '.join(unknown)}.", file=sys.stderr)  # noqa: T201
        return 2
    with tempfile.TemporaryDirectory(prefix="guards-") as folder:
        whole = _copy(Path(folder) / "whole")
        failed = _failures(whole, sorted({test for guard in chosen for test in guard.tests}))
        if failed:
            print("With all guards in place these fail, so nothing is shown:\n" + "\n".join(failed))  # noqa: T201
            return 3
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            results = pool.map(lambda guard: (guard, _silent(guard, Path(folder) / guard.name)), chosen)
            return int(_report(results))


def _copy(target: Path) -> Path:
    """Copy what belongs to the project; what is hidden or built stays behind."""

    def passed_over(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if name in _NOT_SOURCE or (name.startswith(".") and Path(folder) == ROOT)]

    shutil.copytree(ROOT, target, ignore=passed_over)
    return target


def _silent(guard: Guard, folder: Path) -> tuple[list[str], float]:
    """Take the guard out of a copy; return the tests that did not notice, and the seconds that it took."""
    began = time.monotonic()
    _copy(folder)
    (folder / guard.file).write_text(removed(guard), encoding="utf-8")
    noticed = _failures(folder, guard.tests)
    shutil.rmtree(folder, ignore_errors=True)
    return [test for test in guard.tests if test.partition("[")[0] not in noticed], time.monotonic() - began


def _failures(folder: Path, tests: Iterable[str]) -> list[str]:
    """Run tests in a copy of the tree; return the names of those that failed."""
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rfE", "-p", "no:cacheprovider", *tests],
        cwd=folder,
        env={**os.environ, "CI": "1", "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "1000"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as run:
        try:
            output, _ = run.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            run.kill()
            output, _ = run.communicate()
            return [f"no end after {_SECONDS} seconds"]
    failed = sorted(set(_FAILED.findall(output)))
    return failed if failed or run.returncode == 0 else [f"pytest ended with {run.returncode}", output[-2000:]]


def _report(results: Iterable[tuple[Guard, tuple[list[str], float]]]) -> bool:
    """Print one line a test; return whether a test did not notice."""
    wrong = False
    print(f"{'guard':20} {'rule':5} {'without the guard':20} {'s':>4} test")  # noqa: T201
    for guard, (silent, seconds) in results:
        for test in guard.tests:
            verdict = "STILL PASSES" if test in silent else "failed as it must"
            print(f"{guard.name:20} {guard.shows:5} {verdict:20} {seconds:4.0f} {test}", flush=True)  # noqa: T201
        wrong = wrong or bool(silent)
    return wrong


if __name__ == "__main__":
    sys.exit(main())
