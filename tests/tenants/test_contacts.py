"""A partner's people: who gets which mails, and what became of the one contact that a partner had."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from consent.invitations import mails
from portal.mail import MailRefused
from tenants.models import PartnerContact
from tests.support import builders
from tests.support.staff import Staff


@pytest.mark.django_db
def test_an_invitation_goes_to_those_who_get_invitations_in_the_order_they_were_added() -> None:
    partner = builders.partner()
    builders.contact(partner, "first@partner.example")
    builders.contact(partner, "billing@partner.example", gets_invitations=False)
    builders.contact(partner, "second@partner.example")
    builders.contact(builders.partner(), "other@partner.example")
    assert mails.addresses_of(partner) == ["first@partner.example", "second@partner.example"]
    PartnerContact.objects.update(gets_invitations=False)
    with pytest.raises(MailRefused, match="No contact of the partner gets invitations"):
        mails.addresses_of(partner)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"email": "ANNA@partner.example"}, "has a contact with this address"),
        ({"email": "", "name": "Anna"}, "needs an address"),
        ({"email": "anna@partner.example, other@partner.example"}, "valid email"),
        ({"email": "new@partner.example", "name": "\u202eanna"}, "not allowed"),
    ],
)
def test_what_is_no_contact_is_refused_in_words(columns: dict[str, str], why: str) -> None:
    partner = builders.partner(contact_email="anna@partner.example")
    with pytest.raises(ValidationError, match=why):
        PartnerContact(partner=partner, **columns).full_clean()


@pytest.mark.django_db
def test_who_may_view_partners_sees_their_contacts_and_who_may_change_them_changes_both() -> None:
    partner = builders.partner(contact_email="anna@partner.example")
    path = f"/admin/tenants/partnertenant/{partner.pk}/details/"
    seen = Staff("tenants.view_partnertenant").get(path).content.decode()
    assert "anna@partner.example" in seen
    assert 'name="contacts-0-email"' not in seen
    changes = Staff("tenants.view_partnertenant", "tenants.change_partnertenant").get(path).content.decode()
    assert 'name="contacts-0-email"' in changes
    assert 'name="contacts-0-DELETE"' in changes


@pytest.mark.release  # a migration that is frozen
@pytest.mark.django_db(transaction=True)
def test_the_one_contact_of_each_partner_is_carried_over_and_back() -> None:
    try:
        MigrationExecutor(connection).migrate([("tenants", "0005_fill_search_text")])
        executor = MigrationExecutor(connection)
        before = executor.loader.project_state([("tenants", "0005_fill_search_text")]).apps
        rows = before.get_model("tenants", "PartnerTenant").objects
        for name, contact, email in (
            ("Both", "Anna", "anna@partner.example"),
            ("Name", "Bert", ""),
            ("Address", "", "carl@partner.example"),
            ("None", "", ""),
        ):
            rows.create(name=name, tenant_id=builders.guid(), contact_name=contact, contact_email=email)
        after = executor.migrate([("tenants", "0006_partner_contacts")]).apps
        partners = after.get_model("tenants", "PartnerTenant").objects
        found = {
            partner.name: [(one.name, one.email, one.gets_invitations) for one in partner.contacts.all()]
            for partner in partners.all()
        }
        assert found == {
            "Both": [("Anna", "anna@partner.example", True)],
            "Name": [("Bert", "", False)],
            "Address": [("", "carl@partner.example", True)],
            "None": [],
        }
        partners.get(name="Both").contacts.create(email="second@partner.example")
        MigrationExecutor(connection).migrate([("tenants", "0005_fill_search_text")])
        assert set(rows.values_list("name", "contact_name", "contact_email")) == {
            ("Both", "Anna", "anna@partner.example"),
            ("Name", "Bert", ""),
            ("Address", "", "carl@partner.example"),
            ("None", "", ""),
        }
    finally:
        call_command("migrate", verbosity=0)
