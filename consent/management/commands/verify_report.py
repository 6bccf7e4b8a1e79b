from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from consent.management.base import EXIT_SOME_FAILED, ConsentCommand
from consent.offboarding.report import ERASURE_FORMAT, NoReport, check_file
from portal.audit.models import AuditEvent
from portal.audit.seals import digest, seal
from portal.audit.walking import first_broken_sequence
from portal.text import number_of

_ACTIONS = ("partner.offboarded", "offboarding.report_emptied", "partner.erased")  # their entries know the report


class Command(ConsentCommand):
    name = "verify_report"
    help = (
        "Check the report of an offboarding or of an erasure: its seal, and that the audit trail of this portal "
        "knows it. Exit codes: 0 it is unchanged and known, 1 it is not, 2 the file cannot be read or is no report."
    )
    examples = ("verify_report northwind.json",)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, metavar="FILE", help="a report as it was downloaded")

    def work(self, options: dict[str, Any]) -> int:
        try:
            found = check_file(options["file"].read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{options['file']} cannot be read ({type(error).__name__}).", returncode=2) from None
        except NoReport as error:
            raise CommandError(str(error), returncode=2) from None
        if not found.genuine:
            other = found.seal.key_id != seal("").key_id
            why = "it was sealed under another INTEGRITY_KEY" if other else "it was changed"
            self.stderr.write(f"The seal does not fit: {why}.")
            return EXIT_SOME_FAILED
        known = AuditEvent.objects.filter(action__in=_ACTIONS, details__report_sha256=digest(found.text))
        event = known.order_by("sequence").first()
        if event is None:
            self.stderr.write("The seal fits, but the audit trail does not know it: was the database restored?")
            return EXIT_SOME_FAILED
        broken = first_broken_sequence()
        if broken is not None:
            self.stderr.write(f"The seal fits, but the audit trail does not fit together from entry {broken} on.")
            return EXIT_SOME_FAILED
        name = found.report["partner"]["name"]
        self.say(f"Unchanged, and known to the audit trail (entry {event.sequence}): {name}, {_what(found.report)}.")
        return 0


def _what(report: dict[str, Any]) -> str:
    if report["format"] == ERASURE_FORMAT:
        return f"erased, {number_of(len(report['remains']), 'thing')} named that remain"
    counts = report["counts"]
    return f"{counts['proven_absent']} of {counts['customers']} customers proven absent"
