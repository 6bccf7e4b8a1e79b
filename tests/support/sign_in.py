"""A person who signs in to the staff's pages by their forms."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from django.contrib.auth.models import User
from django.urls import reverse

from portal.staff import factors
from tests.support import builders
from tests.support.authenticators import app_code
from tests.support.portal import Browser

PASSWORD = "correct horse battery"
_HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)"')
_FORM = re.compile(r"<form\b.*?</form>", re.DOTALL)
_OPTIONS = re.compile(r'data-options="([^"]*)"')


class Person(Browser):
    """Somebody with a browser of their own, behind an address of their own."""

    def __init__(self, address: str = "198.51.100.1") -> None:
        super().__init__()
        self.defaults["REMOTE_ADDR"] = address

    def send(self, page: Any, path: str = "", **fields: str) -> Any:
        """Fill in a form of a page, with its hidden fields, and send it.

        Args:
            path: where the form leads; by default back to its page.
            fields: with ``answer`` it is the form of a passkey.
        """
        mark = f'action="{path}"' if path else "data-passkey=" if "answer" in fields else ""
        ours = [one for one in _FORM.findall(page.content.decode()) if "csrfmiddlewaretoken" in one]
        forms = [one for one in ours if mark in one.partition(">")[0]]
        wanted = [one for one in forms if mark or not re.search("data-passkey=|action=", one.partition(">")[0])]
        wanted = wanted or (ours if path else [])  # somebody forges a form
        assert wanted, "no form of this page leads to itself"
        hidden = {name: unescape(value) for name, value in _HIDDEN.findall(wanted[0])}
        to = path or page.request["PATH_INFO"]
        return self.post(to, {**hidden, **fields}, headers={"referer": f"https://portal.localhost{to}"})

    def password(self, name: str = "anna", password: str = PASSWORD, **more: str) -> Any:
        """Send name and password from the sign-in page."""
        return self.send(self.get(reverse("admin:login")), username=name, password=password, **more)

    def sign_in(self, key: str, name: str = "anna", steps: int = 0) -> Any:
        """Sign in with password and authenticator app; return the answer of the last step."""
        first = self.password(name)
        assert first["Location"] == reverse("staff_factor"), first.content.decode()
        return self.send(self.get(first["Location"]), code=app_code(key, steps))

    def is_in(self) -> bool:
        """Whether a page of staff opens."""
        return bool(self.get(reverse("staff_account")).status_code == 200)


def options(page: Any) -> str:
    """Return what a page hands to the browser for a passkey."""
    found = _OPTIONS.search(page.content.decode())
    assert found, "this page asks for no passkey"
    return unescape(found[1])


def with_app(name: str = "anna", **more: Any) -> tuple[User, str]:
    """Return an account with a password and an authenticator app, and the app's key."""
    user = User.objects.create_user(name, password=PASSWORD, is_staff=True, **{"is_superuser": True, **more})
    offered = factors.offer_app(user)
    # The code of the half minute before, so that the present one is still unused.
    factors.add_app(user, offered.kept, app_code(offered.key, -1), actor=builders.ACTOR)
    return user, offered.key
