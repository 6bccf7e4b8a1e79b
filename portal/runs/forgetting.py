"""Take away what units of runs say of somebody who was erased (S-68)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from django.db.models import Q

from portal.runs.kinds import Kind
from portal.runs.models import RunItem


def forget_units(
    kinds: Sequence[Kind],
    *,
    label: str,
    groups: Collection[int] | None = None,
    keys: Collection[int] | None = None,
) -> int:
    """Call the units of these groups, or with these keys, by another name and take their message; ids and results stay.

    Returns:
        How many were changed; those that were changed before do not count.
    """
    chosen = RunItem.objects.filter(run__kind__in=[kind.name for kind in kinds])
    if groups is not None:
        chosen = chosen.filter(group__in=groups)
    if keys is not None:
        chosen = chosen.filter(key__in=keys)
    return chosen.exclude(Q(label=label, message="")).update(label=label, message="")
