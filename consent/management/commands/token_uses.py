from argparse import ArgumentParser, ArgumentTypeError
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.db.models import Sum
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from consent.management.base import ConsentCommand
from consent.management.selection import one_tenant_id
from consent.uses.touched import HEADER, lines, service_named, touched
from portal.audit.trail import record
from portal.site.export import csv_lines
from tenants.models import PartnerTenant


class Command(ConsentCommand):
    name = "token_uses"
    help = (
        "Answer a partner's question “was I touched?”: which of its access tokens were issued or given out in a "
        "window, for what service and customer, by whom and from where. Exit codes: 0 said, 2 usage."
    )
    examples = (
        "token_uses $PARTNER --since 2026-11-28T00:00Z",
        "token_uses $PARTNER --since 2026-11-28T00:00Z --until 2026-11-29T12:00Z --csv northwind-uses.csv",
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("partner", metavar="TENANT", help="the partner's tenant id")
        parser.add_argument("--since", type=_moment, metavar="TIME", help="begin of the window; a day ago without it")
        parser.add_argument("--until", type=_moment, metavar="TIME", help="its end; now without it")
        parser.add_argument("--csv", type=Path, metavar="FILE", help="write each use to a new file")

    def work(self, options: dict[str, Any]) -> int:
        partner = PartnerTenant.objects.filter(tenant_id=one_tenant_id(options["partner"])).first()
        if partner is None:
            raise CommandError("No partner with this tenant id.", returncode=2)
        until = options["until"] or timezone.now()
        since = options["since"] or until - timedelta(days=1)
        if since >= until:
            raise CommandError("The window ends before it begins.", returncode=2)
        found = touched(partner, since, until)
        groups: Any = found.order_by().values("audience", "purpose", "actor")
        groups = groups.annotate(issued=Sum("issued"), cached=Sum("cached")).order_by("audience", "purpose", "actor")
        self.say(f"{partner.name}, from {since:%Y-%m-%d %H:%M} to {until:%Y-%m-%d %H:%M} UTC:")
        purposes = dict(found.model.Purpose.choices)
        for one in groups:
            self.say(
                f"{service_named(one['audience'])}: {one['issued']:,} issued, {one['cached']:,} given out again from "
                f"memory. {purposes[one['purpose']]}, by {one['actor']}."
            )
        if not groups:
            self.say("No token was issued or given out.")
        details = {"since": since.isoformat(), "until": until.isoformat(), "rows": found.count()}
        record("token_uses.exported", actor=self.actor, subject={"partner": partner.pk}, details=details)
        if (file := options["csv"]) is not None:
            try:
                with file.open("x", encoding="utf-8", newline="") as out:
                    file.chmod(0o600)
                    out.writelines(csv_lines(HEADER, lines(found)))
            except OSError as error:
                raise CommandError(
                    f"{file} cannot be written ({error.strerror}); name a new file.", returncode=2
                ) from None
            self.say(f"Each of them stands in {file}.")
        return 0


def _moment(text: str) -> datetime:
    found = parse_datetime(text)
    if found is None or found.tzinfo is None:
        raise ArgumentTypeError("a time looks like 2026-11-28T14:00Z")
    return found
