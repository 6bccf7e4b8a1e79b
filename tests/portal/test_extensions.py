from __future__ import annotations

import pytest

from portal import starting
from portal.extensions import declared
from portal.runs.registry import Work, jobs, labels
from portal.site.extension_points import AdminExtension, extensions


def test_the_apps_add_in_their_order_and_each_once() -> None:
    found = list(declared("extension", "EXTENSION", AdminExtension))
    names = [name for extension in found for name in extension.subjects]
    assert names.index("run") < names.index("partner") < names.index("consent")
    assert len(names) == len(set(names)), "one name means one thing"
    assert list(extensions()) == found
    works = list(declared("work", "WORK", Work))
    kinds = [kind.name for work in works for kind in work.kinds]
    assert len(set(kinds)) == len(kinds) > 3
    assert set(kinds) <= labels().keys()  # other tests of this process may have added theirs
    names = [job.name for each in declared("jobs", "JOBS", tuple) for job in each]
    assert len(set(names)) == len(names) > 8
    assert set(names) <= set(jobs())
    assert len(list(declared("start", "START", starting.Start))) == 2


@pytest.mark.parametrize("value", [None, "a text", Work])
def test_what_is_no_such_object_is_refused_and_not_passed_over(monkeypatch: pytest.MonkeyPatch, value: object) -> None:
    monkeypatch.setattr("consent.work.WORK", value)
    with pytest.raises(TypeError, match=r"^consent\.work declares no WORK of the type Work$"):
        list(declared("work", "WORK", Work))
