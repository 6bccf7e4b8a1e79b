from argparse import ArgumentParser
from collections import Counter
from typing import Any

from consent import clients
from consent.checks import CheckResult, check_token
from consent.commands import (
    EXIT_SOME_FAILED,
    EXIT_SYSTEMIC,
    ConsentCommand,
    add_partner_selection,
    selected_partners,
)
from consent.models import PartnerConsent
from portal.microsoft.identifiers import new_correlation_id

_SYSTEMIC_AFTER = 5  # that many partners in a row at the start, and the cause is ours


class Command(ConsentCommand):
    name = "check_tokens"
    help = (
        "Check the token of each chosen partner by a real redemption and a real Partner Center answer. "
        "Exit codes: 0 all good, 1 some partners failed, 3 stopped because the cause is on our side."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_partner_selection(parser)
        parser.add_argument("--json", action="store_true", help="JSON lines instead of text")

    def work(self, options: dict[str, Any]) -> int:
        consents = (
            PartnerConsent.objects.usable()
            .filter(partner__in=selected_partners(options))
            .select_related("partner", "registration")
            .oldest_check_first()
        )
        classes: Counter[str] = Counter()
        total = consents.count()
        for number, consent in enumerate(consents.iterator(chunk_size=500), start=1):
            client = clients.partner_center_of(consent, new_correlation_id(), fresh=True)
            result = check_token(consent, client, actor=self.actor)
            classes[result.failure_class] += 1
            self._show(result, number, total, as_json=options["json"])
            systemic = sum(classes.values()) == number <= _SYSTEMIC_AFTER and result.systemic
            if systemic and number == min(_SYSTEMIC_AFTER, total) and len(classes) == 1:
                self.stderr.write(f"Stopped: {result.cause} {result.remedy} No partner's state was changed.")
                return EXIT_SYSTEMIC
        summary = {"checked": sum(classes.values()), "classes": dict(classes)}
        if options["json"]:
            self.say_json({"summary": summary})
        else:
            self.say(f"Checked {summary['checked']}: " + ", ".join(f"{n} {name}" for name, n in classes.items()))
        return 0 if set(classes) <= {"ok"} else EXIT_SOME_FAILED

    def _show(self, result: CheckResult, number: int, total: int, *, as_json: bool) -> None:
        if as_json:
            self.say_json(
                {
                    "partner": result.partner,
                    "ok": result.ok,
                    "class": result.failure_class,
                    "cause": result.cause,
                    "owner": result.owner,
                    "remedy": result.remedy,
                    "code": result.code,
                    "correlation_id": result.correlation_id,
                }
            )
        elif result.ok:
            self.say(f"[{number}/{total}] ok      {result.partner}")
        else:
            self.say(
                f"[{number}/{total}] {result.failure_class}  {result.partner}: {result.cause} "
                f"Who must act: {result.owner}. {result.remedy} [correlation id {result.correlation_id}]"
            )
