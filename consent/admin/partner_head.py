"""The head of a partner's page, which all its tabs show: state, next step with its buttons, connections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from zlib import crc32

from django.http import HttpRequest
from django.utils import timezone

from consent.admin.buttons import (
    PERMISSIONS,
    Button,
    ask_button,
    buttons_of_partner,
    link_button,
    list_action,
    list_actions,
)
from consent.admin.news import without_result
from consent.admin.panels import OWNER_TONES, STANDING_TONES, STATE_TONES
from consent.hub.connection import Connection, connections
from consent.hub.facts import PartnerFacts
from consent.hub.steps import Action, NextStep, next_step_of
from consent.models import PartnerConsent
from consent.states import standing
from portal.site.admin import PortalModelAdmin
from portal.site.display import Tone, distance
from tenants.models import PartnerTenant


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionCard:
    """A connection with its buttons, and the words of its newest check while that is news."""

    connection: Connection
    standing: str
    tone: Tone
    buttons: Sequence[Button]
    answer: str
    answer_tone: Tone

    @property
    def consent(self) -> Any:
        return self.connection.consent


class Hub:
    """What all tabs of one partner show; each part is read when a template asks for it."""

    def __init__(self, page: PortalModelAdmin[PartnerTenant], request: HttpRequest, partner: PartnerTenant) -> None:
        self._page, self._request = page, request
        self.facts, self.partner = PartnerFacts(partner), partner
        self.now = timezone.now()

    @cached_property
    def step(self) -> NextStep:
        return next_step_of(self.facts, self.now)

    @property
    def context(self) -> dict[str, Any]:
        """Return the context of the head and the next step."""
        return {
            "partner": self.partner,
            "state": self.facts.state,
            "state_tone": STATE_TONES[self.facts.state],
            "more": list_actions(
                self._request, self.partner, without=[f"{'enable' if self.partner.is_active else 'disable'}_partners"]
            ),
            **step_context(self.step, self.now),
            "step_buttons": buttons_of_partner(self._request, self.facts, self.step),
        }

    @property
    def shown(self) -> str:
        """What the page says of state and next step, in a few characters."""
        return f"{crc32(f'{self.facts.state} {self.step.what} {self.step.remedy}'.encode()):x}"

    @cached_property
    def cards(self) -> list[ConnectionCard]:
        return [self._card(one) for one in connections(self.facts, self.now)]

    def _card(self, connection: Connection) -> ConnectionCard:
        consent = connection.consent
        stands = standing(consent.standing)
        tone = Tone.WARN if connection.stale else STANDING_TONES[stands]
        answer, answer_tone = _answer(connection, self.now)
        return ConnectionCard(
            connection=connection,
            standing=str(stands.label),
            tone=tone,
            buttons=self._buttons(consent),
            answer=answer,
            answer_tone=answer_tone,
        )

    def _buttons(self, consent: PartnerConsent) -> list[Button]:
        found: list[Button | None] = []
        if consent in self.facts.usable:
            found += [
                ask_button(self.partner, action, consent.registration_id)
                for action in (Action.CHECK, Action.RENEW)
                if self._request.user.has_perm(PERMISSIONS[action])
            ]
        if consent.registration in self.facts.invitable:
            label = Action.INVITE_AGAIN.label
            found.append(
                link_button(
                    self._request, self.facts, self.facts.invitable, consent.registration, label=label, is_open=False
                )
            )
        held = consent.generation and consent.state not in PartnerConsent.LEFT_STATES
        if held and self._request.user.has_perm("consent.disconnect_partnerconsent"):
            found.append(list_action(PartnerConsent, "disconnect_partners", [consent.pk], "Disconnect", dangerous=True))
        return [one for one in found if one is not None]

    @property
    def is_live(self) -> bool:
        """Whether an answer is under way, so that the page asks again."""
        return any(one.connection.check is not None and one.connection.check.under_way for one in self.cards)


def _answer(connection: Connection, now: Any) -> tuple[str, Tone]:
    """Return what the newest check says, as long as it is news."""
    check = connection.check
    if check is None:
        return "", Tone.QUIET
    if (said := without_result(check, now, "check")) is not None:
        return said
    when = distance(check.at - now)
    if check.good:
        return f"Checked {when}: the token works.", Tone.GOOD
    return f"Checked {when}: {check.message}", Tone.BAD


def step_context(step: NextStep, now: Any) -> dict[str, Any]:
    """Return how a next step is shown."""
    since = "" if step.since is None else f"{step.since:%Y-%m-%d %H:%M} UTC ({distance(step.since - now)})"
    return {"step": step, "step_tone": _tone(step), "step_since": since}


def _tone(step: NextStep) -> Tone:
    if step.owner is None:
        return Tone.GOOD
    return OWNER_TONES[step.owner.value] if step.is_wrong else Tone.BUSY
