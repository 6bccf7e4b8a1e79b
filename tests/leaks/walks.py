"""Walks through the portal while the leak gate is open, and what it must have found."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import site
from django.contrib.auth.models import User
from django.db.models import Model
from django.urls import NoReverseMatch, reverse

from tests.leaks.conftest import Gate
from tests.support import schema


def crawl_admin(gate: Gate) -> None:
    """Look at every list and every object as the most powerful member of staff."""
    who = gate.browser()
    who.force_login(User.objects.create_superuser("anna", password=None))
    who.get(reverse("admin:index"))
    for model in site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        assert who.get(reverse(f"{name}_changelist")).status_code == 200
        objects: list[Model] = list(model._default_manager.all()[:3])
        for one in objects:
            for page in ("change", "history"):
                try:
                    who.get(reverse(f"{name}_{page}", args=[one.pk]))
                except NoReverseMatch:
                    continue


def assert_clean(gate: Gate, *kinds: str) -> None:
    found = gate.found()
    assert set(kinds) <= gate.canaries.kinds(), "a secret that should have passed was not seen"
    assert found == []
    assert schema.misshapen() == []


ALWAYS = ("client secret", "key of this deployment", "link")


def onboarding(gate: Gate, **choices: Any) -> None:
    gate.portal.onboard(gate.browser(), **choices)
