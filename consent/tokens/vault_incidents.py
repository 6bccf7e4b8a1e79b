"""What staff are told of a comparison of database and vault: one incident for each row that a person must look at."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from consent.tokens.differences import TAKEN_UP, Difference, Kind
from portal.incidents.models import Incident
from portal.incidents.service import report, settle
from portal.microsoft.diagnosis import Owner
from portal.site.subjects import facts
from portal.text import number_are
from tenants.models import PartnerTenant

INCIDENT = "vault_difference"
MANY = "vault_many_differences"
CROWDED = "vault_many_versions"


def known_to_differ() -> Sequence[str]:
    """Return what open incidents of differences are about: ``consent:41``."""
    return list(Incident.objects.open().filter(cause=INCIDENT).values_list("about", flat=True))


def tell_of_differences(differences: Sequence[Difference], looked_at: Collection[str] | None) -> None:
    """Open an incident for what only a person can decide, and settle those that are over.

    Args:
        looked_at: what incidents may be settled about; None for all, as everything was looked at.
    """
    loud = {
        each.about: each
        for each in differences
        if each.meaning.loud and each.kind is not Kind.MISMATCH and each.outcome != TAKEN_UP
    }  # stopping a partner reports by itself
    for about in known_to_differ():
        if about not in loud and (looked_at is None or about in looked_at):
            settle(INCIDENT, about=about)
    for about, difference in loud.items():
        meaning = difference.meaning
        report(
            INCIDENT,
            about=about,
            name=", ".join(text for text, _ in facts(difference.subject)) or difference.name,
            owner=meaning.owner,
            words=f"{meaning.what} {meaning.remedy}",
            subject=difference.subject,
        )


def tell_of_many(differ: int, looked_at: int) -> None:
    """Say that nothing was changed, because this looks like the wrong vault or the wrong database."""
    report(
        MANY,
        owner=Owner.US,
        words=(
            f"Database and vault differ in {differ} of {looked_at} rows and entries; nothing was changed. Make sure "
            "that both belong together and that no older copy was restored by mistake; then let an operator see what "
            "differs before anything is changed."
        ),
    )


def tell_of_versions(crowded: Mapping[int, int], most: int, *, whole: bool) -> None:
    """Warn before entries have more versions than can be backed up: a vault that keeps them all never has fewer.

    Args:
        crowded: the versions of such entries, by partner.
        whole: all entries were looked at, so none at all settles it.
    """
    if not crowded:
        if whole:
            settle(CROWDED)
        return
    partner, number = max(crowded.items(), key=lambda each: each[1])
    report(
        CROWDED,
        owner=Owner.US,
        name=PartnerTenant.objects.get(pk=partner).name,
        words=(
            f"The vault backs up no entry with more than {most} versions, and the entries of "
            f"{number_are(len(crowded), 'partner')} near that; this one has {number}. All tokens work on. Give each a "
            "new entry: disable the partner, let an operator erase its tokens, enable it and send it a new link."
        ),
        subject={"partner": partner},
    )
