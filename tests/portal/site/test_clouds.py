"""The admin says why a cloud cannot be chosen."""

from __future__ import annotations

import pytest
from django.urls import reverse

from tests.support.staff import Staff


@pytest.mark.django_db
@pytest.mark.parametrize("page", ["tenants_partnertenant", "consent_applicationregistration"])
@pytest.mark.parametrize(
    ("cloud", "told"),
    [
        ("germany", "Microsoft Cloud Germany was closed on 29 October 2021; its partners moved to Global."),
        ("mars", "Unknown cloud; choose one of global, usgov, china."),
    ],
)
def test_a_cloud_that_cannot_be_chosen_is_refused_with_its_reason(page: str, cloud: str, told: str) -> None:
    staff, address = Staff(), reverse(f"admin:{page}_add")
    form = staff.get(address).context["adminform"].form
    assert "Germany was closed" in form.fields["cloud"].help_text
    assert [key for key, _ in form.fields["cloud"].choices if key] == ["global", "usgov", "china"]

    refused = staff.post(address, {"name": "Northwind", "cloud": cloud}, headers=staff._here(address))

    assert refused.status_code == 200
    assert refused.context["adminform"].form.errors["cloud"][0] == told
    again = staff.post(address, {"name": "Northwind", "cloud": "usgov"}, headers=staff._here(address))
    assert "cloud" not in again.context["adminform"].form.errors
