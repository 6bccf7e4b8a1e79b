"""What members of staff do in the admin, by its own pages and forms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import unescape
from typing import Any

from django.contrib.auth.models import Permission, User
from django.urls import reverse

from tests.support.portal import Browser

_HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)">')


class Staff(Browser):
    """Somebody who is signed in; without permissions a superuser, else with these ones only."""

    def __init__(self, *permissions: str) -> None:
        super().__init__()
        self.handler.enforce_csrf_checks = False  # forms are posted here without the page around them
        number = User.objects.count()
        if permissions:
            user = User.objects.create_user(f"staff-{number}", is_staff=True)
            for name in permissions:
                app, codename = name.split(".")
                user.user_permissions.add(Permission.objects.get(content_type__app_label=app, codename=codename))
        else:
            user = User.objects.create_superuser(f"admin-{number}")
        self.user = user
        self.force_login(user)

    @classmethod
    def of(cls, user: User) -> Staff:
        """Return the browser of a person who exists, signed in."""
        staff = cls.__new__(cls)
        Browser.__init__(staff)
        staff.handler.enforce_csrf_checks = False
        staff.user = user
        staff.force_login(user)
        return staff

    def choose(self, model: str, action: str, *keys: object) -> Any:
        """Choose a list action for some rows, and return the answer."""
        path = reverse(f"admin:{model}_changelist")
        return self.post(path, {"action": action, "_selected_action": list(keys), "index": 0}, headers=self._here(path))

    def confirm(self, page: Any, **fields: object) -> Any:
        """Press the button of a confirmation, with its fields filled, and return the page that it ends on."""
        path = page.request["PATH_INFO"]
        query = page.request.get("QUERY_STRING", "")
        values: dict[str, Any] = {}
        for name, value in _HIDDEN.findall(page.content.decode()):
            values.setdefault(name, []).append(unescape(value))
        assert "_once" in values, "this page asks nothing"
        return self.post(
            f"{path}?{query}" if query else path, {**values, **fields}, follow=True, headers=self._here(path)
        )

    @staticmethod
    def _here(path: str) -> dict[str, str]:
        return {"referer": f"https://portal.localhost{path}"}


def told(page: Any) -> str:
    """Return the messages that a page shows."""
    return " ".join(str(message) for message in page.context["messages"])


def asked(queries: Iterable[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Return the statements of a page without those by which its session notes, once a minute, that it is used.

    Nor is the lock of PostgreSQL counted under which a page of the audit trail adds its entry; SQLite needs none.
    """
    note = ("SAVEPOINT", "RELEASE SAVEPOINT", 'UPDATE "django_session"', "SELECT pg_advisory_xact_lock")
    return [one for one in queries if not one["sql"].startswith(note)]
