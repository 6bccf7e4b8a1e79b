import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Any

from django.core.management.base import CommandError

from consent import clients
from consent.management.base import EXIT_SOME_FAILED, EXIT_USAGE, ConsentCommand
from consent.models import ApplicationRegistration
from consent.moving_in.sources import JsonLines, NamedByTenant, Source, TooManyTokens
from consent.moving_in.tokens import Judged, Why, judge
from consent.naming import active_registration
from consent.runs.import_tokens import IMPORT_TOKENS, Import, at_hand
from portal.runs import service
from portal.runs.arguments import EXIT_CODES, add_run_arguments
from portal.runs.console import begin_with, foreground, refuse_if_busy
from portal.runs.kinds import Outcome
from portal.runs.models import Run, RunItem
from portal.text import number_of

WOULD_TRY = "to_try"


class Command(ConsentCommand):
    name = "import_tokens"
    help = (
        "Adopt refresh tokens that you have already: from standard input, one JSON object a line with tenant_id and "
        "refresh_token, or from another Key Vault whose secrets are named by tenant id. Each is redeemed with the "
        "registration's credential and must prove tenant, account, MFA and permissions as a sign-in does; otherwise "
        "its line says why not. The source is never written. Run it again with the same input to go on after a crash: "
        f"what is connected stays as it is. {EXIT_CODES}"
    )
    examples = (
        "import_tokens --dry-run < tokens.jsonl  # redeems nothing",
        "import_tokens < tokens.jsonl",
        "import_tokens --from-vault https://old-vault.vault.azure.net",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--from-vault", metavar="URL", help="read them from this Key Vault: it needs Get and List")
        parser.add_argument(
            "--registration",
            metavar="REGISTRATION",
            help="the application that the tokens were issued to: its application id, or its number",
        )
        add_run_arguments(parser, concurrency=8, skips=False)

    def work(self, options: dict[str, Any]) -> int:
        if options["background"] or options["processes"] != 1:
            raise CommandError("The tokens are in the memory of this one process only.", returncode=EXIT_USAGE)
        clients.vault()  # another vault than the database's stops the command
        registration = active_registration(options["registration"])
        source = self._source(options["from_vault"])
        judged = judge(source.lines, registration)
        to_try = {one.partner: one.line.where for one in judged if one.refused is None and one.partner is not None}
        for one in judged:
            if one.refused is not None or options["dry_run"]:
                self._tell(one, options)
        self._sum_up(judged, options)
        code = 0
        if not options["dry_run"]:
            tenants = frozenset(partner.tenant for partner in to_try)
            where = {partner.pk: place for partner, place in to_try.items()}
            with at_hand(Import(source=source, registration=registration, tenants=tenants)):
                code = self._work_run(source, registration, where, options)
        refused = any(one.refused is not None and one.refused.why is not Why.ALREADY_CONNECTED for one in judged)
        return code or (EXIT_SOME_FAILED if refused else 0)

    def _source(self, vault: str | None) -> Source:
        try:
            if vault is None:
                if sys.stdin.isatty():
                    raise CommandError("Give the lines on standard input, or name --from-vault.", returncode=EXIT_USAGE)
                return JsonLines(sys.stdin.buffer)
            named = NamedByTenant(clients.other_vault(vault), vault.rstrip("/"))
        except TooManyTokens as error:
            raise CommandError(str(error), returncode=EXIT_USAGE) from None
        if named.passed_over:
            self.stderr.write(f"{number_of(named.passed_over, 'secret')} with another name than a tenant id: not read.")
        return named

    def _work_run(
        self,
        source: Source,
        registration: ApplicationRegistration,
        where: Mapping[int, str],
        options: Mapping[str, Any],
    ) -> int:
        """Work the run of this input: the unfinished one, which goes on, or a new one.

        An unfinished run of another input is cancelled: its own command alone had its tokens. What it did stays done.
        """
        tenants = sorted({line.tenant_id for line in source.lines if line.tenant_id is not None})
        digest = sha256("".join(tenants).encode()).hexdigest()[:8]
        scope = {
            "registration": registration.pk,
            "input": f"{source.name}: {number_of(len(tenants), 'tenant')} (fingerprint {digest})",
        }
        unfinished = Run.objects.unfinished().filter(kind=IMPORT_TOKENS.name, scope__registration=registration.pk)
        for other in unfinished:
            if other.scope != scope:
                refuse_if_busy(other)
                service.cancel(other, actor=self.actor)
        if not where and not unfinished.exists():
            return 0
        return foreground(
            begin_with(partial(service.start, IMPORT_TOKENS, scope=scope), options=options, actor=self.actor),
            out=self.stdout,
            err=self.stderr,
            as_json=options["json"],
            words=partial(_words, where),
            concurrency=options["concurrency"],
        )

    def _tell(self, one: Judged, options: Mapping[str, Any]) -> None:
        refused = one.refused
        if options["json"]:
            record = {
                "where": one.line.where,
                "tenant_id": one.line.tenant_id or "",
                "partner": "" if one.partner is None else one.partner.name,
                "class": WOULD_TRY if refused is None else refused.why.value,
                "message": "" if refused is None else str(refused),
                "owner": "" if refused is None else refused.owner.value,
            }
            self.say_json(record)
            return
        name = one.partner.name if one.partner is not None else one.line.tenant_id or "no partner"
        told = f"{WOULD_TRY}  {one.line.where}, {name}"
        self.say(told if refused is None else f"{refused.why.value}  {one.line.where}, {name}: {refused}")

    def _sum_up(self, judged: Sequence[Judged], options: Mapping[str, Any]) -> None:
        counts = Counter(WOULD_TRY if one.refused is None else one.refused.why.value for one in judged)
        if options["json"]:
            self.say_json({"lines": len(judged), "before_redeeming": dict(counts), "dry_run": options["dry_run"]})
            return
        found = ", ".join(f"{number:,} {name}" for name, number in counts.most_common())
        nothing = " Nothing was redeemed." if options["dry_run"] else ""
        self.say(f"{number_of(len(judged), 'token')} in {options['from_vault'] or 'standard input'}: {found}.{nothing}")


def _words(where: Mapping[int, str], item: RunItem, outcome: Outcome) -> str:
    """Return the line of one token for people."""
    place = f"{where[item.key]}, {item.label}" if item.key in where else item.label
    if outcome.ok:
        # One that an earlier process adopted, and could not write any more, is not called adopted a second time.
        word = Why.ALREADY_CONNECTED.value if outcome.fields.get("class") == Why.ALREADY_CONNECTED else "adopted"
        return f"{word}  {place}{': ' + outcome.message if outcome.message else ''}"
    who = f" Who must act: {outcome.owner}." if outcome.owner else ""
    return f"{outcome.failure_class}  {place}: {outcome.message}{who} [correlation id {item.correlation_id}]"
