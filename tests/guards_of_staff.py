"""Guards of who is at the wheel: accounts of staff, what two persons decide, what the trail keeps (S-46 to S-70)."""

from __future__ import annotations

from tests.support.guard import Guard

_COLLEAGUES = "tests/portal/staff/test_colleagues.py::test_"
_ROLES = "tests/portal/staff/test_roles.py::test_"
_TEAMS = "tests/portal/staff/test_teams.py::test_"
_KEYS = "tests/portal/staff/test_factor_keys.py::test_"
_LINKS = "tests/consent/invitations/test_links.py::test_"
_STOPS = "tests/consent/containment/test_service.py::test_"
_IMPORTS = "tests/consent/moving_in/test_partners.py::test_"
_DEACTIVATED = "tests/consent/applications/test_deactivation.py::test_"

STAFF_GUARDS = (
    Guard(
        name="factor-of-account",
        shows="S-46",
        file="portal/staff/factor_keys.py",
        text='    return f"{kind} {user}".encode()',
        without='    return b""',
        tests=(
            f"{_KEYS}a_key_that_was_moved_to_the_row_of_another_account_opens_nothing_there",
            f"{_KEYS}a_key_opens_for_its_kind_and_account_and_under_its_key_only",
        ),
    ),
    Guard(
        name="link-by-two",
        shows="S-46",
        file="portal/staff/accounts.py",
        text="    if approved is None and needs_second_person(user):",
        without="    if False:",
        tests=(
            f"{_COLLEAGUES}a_link_to_an_account_in_use_takes_two_persons_and_its_owner_is_told",
            f"{_COLLEAGUES}a_first_link_to_a_security_administrator_takes_two_persons",
        ),
    ),
    Guard(
        name="link-for-who-asked",
        shows="S-50",
        file="portal/decisions/doing.py",
        text="    if account is not None:\n        rows = rows.filter(requester=account.pk)\n",
        without="",
        tests=(f"{_COLLEAGUES}a_link_to_an_account_in_use_takes_two_persons_and_its_owner_is_told",),
    ),
    Guard(
        name="link-told-to-owner",
        shows="S-46",
        file="portal/staff/accounts.py",
        text="    if in_use:\n        _tell_owner(user, actor)\n",
        without="",
        tests=(
            f"{_COLLEAGUES}a_link_to_an_account_in_use_takes_two_persons_and_its_owner_is_told",
            f"{_COLLEAGUES}an_owner_without_an_address_is_told_by_the_incident_and_the_trail_says_so",
        ),
    ),
    Guard(
        name="password-of-others",
        shows="S-46",
        file="portal/admin.py",
        text="person is None or person.pk == request.user.pk or not self.has_change_permission(request, person)",
        without="True",
        tests=(f"{_COLLEAGUES}nobody_sets_the_password_of_somebody_else",),
    ),
    Guard(
        name="security-role-by-two",
        shows="S-48",
        file="portal/staff/roles.py",
        text=" and Role.SECURITY in {*after} - {*before} and actor.kind == AuditEvent.ActorKind.STAFF:",
        without=" and False:",
        tests=(f"{_ROLES}two_persons_decide_who_becomes_a_security_administrator",),
    ),
    Guard(
        name="sight-of-who-asks",
        shows="S-48",
        file="portal/decisions/service.py",
        text="    if not _sees(limits, kind, parameters):",
        without="    if False:",
        tests=(f"{_TEAMS}a_member_of_a_team_neither_asks_for_nor_decides_about_what_the_team_does_not_see",),
    ),
    Guard(
        name="sight-of-who-decides",
        shows="S-48",
        file="portal/decisions/service.py",
        text="    if not _sees(limits_of(account), kind, decision.parameters):",
        without="    if False:",
        tests=(f"{_TEAMS}a_member_of_a_team_neither_asks_for_nor_decides_about_what_the_team_does_not_see",),
    ),
    Guard(
        name="no-link-in-a-stop",
        shows="S-80",
        file="consent/invitations/links.py",
        text="    if stop := stopped(registration, partner):",
        without='    if stop := "":',
        tests=(f"{_LINKS}no_link_is_made_during_an_emergency_stop_of_it",),
    ),
    Guard(
        name="waves-wait-for-activation",
        shows="S-80",
        file="consent/runs/resuming.py",
        text="    if one.deactivated:",
        without="    if False:",
        tests=(f"{_STOPS}the_first_wave_waits_until_the_registration_is_active_again",),
    ),
    Guard(
        name="activated-by-two",
        shows="S-80",
        file="consent/applications/deactivation.py",
        text="    if Containment.objects.filter(pk=one.pk, state=Containment.State.ON).exists():",
        without="    if False:",
        tests=(f"{_DEACTIVATED}it_is_deactivated_read_back_and_activated_before_it_is_resumed",),
    ),
    Guard(
        name="edit-in-trail",
        shows="S-55",
        file="portal/site/admin.py",
        text="        if self.audit_word and (form.changed_data or not change):",
        without="        if False:",
        tests=(
            "tests/consent/applications/test_registrations.py::test_new_rows_and_tags_are_in_the_trail_too",
            f"{_COLLEAGUES}a_changed_account_is_in_the_trail_without_what_is_personal",
        ),
    ),
    Guard(
        name="refusal-in-trail",
        shows="S-55",
        file="portal/site/refusals.py",
        text="exception.write_again()",
        without="pass",
        tests=(f"{_ROLES}a_refusal_stays_in_the_trail_when_its_transaction_is_gone",),
    ),
    Guard(
        name="link-with-its-entry",
        shows="S-58",
        file="consent/invitations/links.py",
        text="    token = secrets.token_urlsafe(32)\n    with transaction.atomic():\n",
        without="    token = secrets.token_urlsafe(32)\n    if True:\n",
        tests=(f"{_LINKS}a_link_that_cannot_be_recorded_is_not_made",),
    ),
    Guard(
        name="one-incident",
        shows="S-60",
        file="portal/incidents/service.py",
        text="_count_up(new) or _come_back(new) or _open(new) or _count_up(new)",
        without="_open(new)",
        tests=("tests/portal/incidents/test_service.py::test_a_hundred_repeats_are_one_row_with_a_count_and_one_mail",),
    ),
    Guard(
        name="names-out-of-trail",
        shows="S-68",
        file="portal/site/admin.py",
        text="        kept = [name for name in names if name not in self.audit_without_values]",
        without="        kept = names",
        tests=(
            "tests/consent/applications/test_registrations.py::test_an_edited_partner_stands_in_the_trail_without_its_name",
            "tests/consent/test_trail.py::test_no_value_of_a_personal_column_of_any_table_stands_in_an_entry",
        ),
    ),
    Guard(
        name="contacts-out-of-trail",
        shows="S-70",
        file="consent/moving_in/partners.py",
        text='added = {"added": len(change.contacts), ',
        without='added = {"added": sorted(change.contacts), ',
        tests=(f"{_IMPORTS}applied_it_adds_and_changes_and_a_second_import_has_no_effect",),
    ),
)
