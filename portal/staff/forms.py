"""What the pages of the sign-in and of the own account ask."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.forms import SetPasswordForm
from django.contrib.auth.models import User

_CODE = {"autofocus": True, "autocomplete": "one-time-code", "inputmode": "numeric", "spellcheck": "false"}


class SignInForm(forms.Form):
    """Name and password; the code is shown where it helps."""

    username = forms.CharField(
        label="Name",
        max_length=150,
        widget=forms.TextInput(
            attrs={"autofocus": True, "autocomplete": "username", "autocapitalize": "none", "spellcheck": "false"}
        ),
    )
    password = forms.CharField(
        label="Password",
        max_length=4096,
        strip=False,
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
    )
    code = forms.CharField(
        label="Code of your authenticator app",
        help_text="With it you need not wait.",
        max_length=20,
        required=False,
        widget=forms.TextInput(attrs=_CODE),
    )


class CodeForm(forms.Form):
    """A code of the authenticator app, or a recovery code."""

    code = forms.CharField(label="Code", max_length=20, widget=forms.TextInput(attrs=_CODE))


class AppForm(CodeForm):
    """The first code of a new authenticator app, and the signed key that the page showed."""

    kept = forms.CharField(max_length=1000, widget=forms.HiddenInput())


class PasskeyForm(forms.Form):
    """The browser's answer, which a script fills in, and what the ceremony was begun with."""

    kept = forms.CharField(max_length=1000, widget=forms.HiddenInput())
    answer = forms.CharField(max_length=20_000, widget=forms.HiddenInput())
    name = forms.CharField(label="Name of the passkey", max_length=60, required=False)


class PasswordForm(forms.Form):
    """The own password once more."""

    password = forms.CharField(
        label="Password",
        strip=False,
        widget=forms.PasswordInput(attrs={"autofocus": True, "autocomplete": "current-password"}),
    )


class NewPasswordForm(SetPasswordForm[User]):
    """A new password behind a one-time link."""

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(user, *args, **kwargs)
        self.fields["new_password2"].help_text = ""
