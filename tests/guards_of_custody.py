"""Guards of what follows a consent: sessions of staff, tokens, the trail, how a partner leaves (S-47 to S-70)."""

from __future__ import annotations

from tests.support.guard import Guard

_SESSIONS = "tests/portal/site/test_sessions.py::test_"
_ADMIN = "tests/portal/site/test_admin.py::test_"
_ERASED = "tests/consent/offboarding/test_partner_erasure.py::test_"
_DISCONNECTED = "tests/consent/offboarding/test_disconnect.py::test_"
_HEALTH = "tests/consent/tokens/test_health.py::test_"
_SERVICE = "tests/consent/tokens/test_service.py::test_"
_MAY_DELETE = """\
    def has_delete_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        return False
"""

CUSTODY_GUARDS = (
    Guard(
        name="session-idle",
        shows="S-47",
        file="portal/site/middleware.py",
        text="or (seen and now - seen > LONGEST_IDLE)",
        without="",
        tests=(f"{_SESSIONS}half_an_hour_without_a_request_ends_the_session",),
    ),
    Guard(
        name="session-age",
        shows="S-47",
        file="portal/site/middleware.py",
        text="now - began > LONGEST_SESSION or ",
        without="",
        tests=(f"{_SESSIONS}half_a_day_ends_the_session_of_a_busy_person",),
    ),
    Guard(
        name="record-and-fingerprint",
        shows="S-51",
        file="consent/tokens/versions.py",
        text="        self.check(consent, stored)\n        return stored\n",
        without="        return stored\n",
        tests=("tests/consent/test_alarms.py::test_a_token_of_another_record_is_told_of",),
    ),
    Guard(
        name="renewed-account",
        shows="S-51",
        file="consent/tokens/service.py",
        text="if not is_customer and identity.object_id != consent.pinned_oid:",
        without="if False:",
        tests=("tests/leaks/test_thread.py::test_a_refusal_leaves_no_secret_anywhere[swapped account]",),
    ),
    Guard(
        name="inactive-partner",
        shows="S-53",
        file="consent/tokens/custody.py",
        text="        if not consent.partner.is_active:\n            problem = consent.partner.why_inactive\n",
        without="        if False:\n            problem = consent.partner.why_inactive\n",
        tests=(f"{_SERVICE}a_disabled_partner_stops_before_any_call_and_loses_its_cached_tokens",),
    ),
    Guard(
        name="left-consent",
        shows="S-67",
        file="consent/tokens/custody.py",
        text="elif consent.state in PartnerConsent.LEFT_STATES:",
        without="elif False:",
        tests=(f"{_DISCONNECTED}another_process_that_holds_an_access_token_gives_it_to_nobody_any_more",),
    ),
    Guard(
        name="nothing-deleted",
        shows="S-54",
        file="portal/site/admin.py",
        text='        actions.pop("delete_selected", None)\n',
        without="",
        tests=(f"{_ADMIN}no_list_offers_to_delete_what_is_selected",),
        also=((_MAY_DELETE, ""),),
    ),
    Guard(
        name="works-once",
        shows="S-54",
        file="portal/site/confirming.py",
        text="return SpentForm.objects.spend(number, seconds=_FORM_LIFETIME)",
        without="return True",
        tests=(f"{_ADMIN}a_confirmed_action_runs_once",),
    ),
    Guard(
        name="trail-line-breaks",
        shows="S-59",
        file="portal/audit/trail.py",
        text='if unicodedata.category(c)[0] != "C" else "�"',
        without='if True else "�"',
        tests=("tests/portal/audit/test_trail.py::test_control_and_bidi_characters_are_replaced_in_every_text",),
    ),
    Guard(
        name="formula",
        shows="S-64",
        file="portal/site/export.py",
        text='return f"\'{text}" if _begins_with_trigger(text) else text',
        without="return text",
        tests=("tests/portal/site/test_export.py::test_what_a_spreadsheet_could_run_gets_an_apostrophe",),
    ),
    Guard(
        name="disconnect-lease",
        shows="S-67",
        file="consent/offboarding/disconnect.py",
        text='                lease_owner="",  # a renewal on its way cannot move the pointer any more (R-12)\n',
        without="",
        tests=(f"{_HEALTH}a_renewal_on_its_way_during_a_disconnect_leaves_no_version_that_is_on",),
    ),
    Guard(
        name="disconnect-older-version",
        shows="S-67",
        file="consent/offboarding/disconnect.py",
        text='versions = {consent.secret_version, consent.replaced_version} - {""}',
        without="versions: set[str] = set()",
        tests=(f"{_DISCONNECTED}each_version_of_each_entry_of_the_partner_is_off_in_the_vault_itself",),
    ),
    Guard(
        name="erase-inactive-only",
        shows="S-68",
        file="consent/offboarding/partner_erasure.py",
        text=".exclude(switch=is_.ON)",
        without="",
        tests=(f"{_ERASED}it_is_begun_for_nobody_who_is_active_and_says_first_what_it_would_take_away",),
    ),
    Guard(
        name="vault-before-rows",
        shows="S-68",
        file="consent/offboarding/partner_erasure.py",
        text="    if erased.disabled:\n",
        without="    if False:\n",
        tests=(f"{_ERASED}without_the_right_to_delete_no_row_is_emptied_staff_are_told_and_the_schedule_goes_on",),
    ),
    Guard(
        name="one-transaction",
        shows="S-68",
        file="consent/offboarding/partner_erasure.py",
        text="    with transaction.atomic():\n        # The row is locked",
        without="    if True:\n        # The row is locked",
        tests=(f"{_ERASED}whatever_step_it_dies_in_a_second_run_leads_to_the_same_end",),
    ),
    Guard(
        name="tombstone",
        shows="S-69",
        file="consent/tokens/tombstones.py",
        text="        vault.write(name, Secret(text), tags={}, expires_at=None)\n",
        without="        Secret(text)\n",
        tests=(f"{_ERASED}an_older_database_brings_an_erased_partner_back_as_closed_and_staff_are_told",),
    ),
    Guard(
        name="revived-partner",
        shows="S-69",
        file="consent/tokens/reconcile.py",
        text="        for difference in self._revived():\n            self._add([difference])\n",
        without="",
        tests=(f"{_ERASED}an_older_database_brings_an_erased_partner_back_as_closed_and_staff_are_told",),
    ),
    Guard(
        name="history-emptied",
        shows="S-68",
        file="consent/offboarding/personal.py",
        text='return known.update(object_repr=name, change_message="")',
        without="return 0",
        tests=(f"{_ERASED}a_disabled_partner_is_erased_with_its_waiting_account_and_a_second_time_changes_nothing",),
    ),
)
