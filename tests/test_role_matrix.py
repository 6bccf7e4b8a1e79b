"""Who of staff gets where: tried for each role at each page, button, action, file and service, and compared with
docs/roles.md (S-48). ``python -m tests.roles`` writes the tables anew.
"""

from __future__ import annotations

import difflib
import os

import pytest

from portal.site.sight import sights
from portal.staff.roles import Role
from tests.support.role_matrix import NO_ROLE, OTHER, in_document, rows, tried_pages, tried_services, write, written
from tests.support.services import ASK_NOTHING

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
# Which show what the person may see, here nothing, and a filter of one's own, of which there is none.
_ALL = {"overview", "search", "running", "tenants.partnertenant: remove_filter"}


@pytest.mark.req("S-48")
def test_each_role_gets_where_the_document_says_and_nowhere_else() -> None:
    rows()
    pages = tried_pages([*(role.value for role in Role), NO_ROLE])
    assert {name for name, allowed in pages.items() if NO_ROLE in allowed} == _ALL, "somebody without a role got in"
    assert len(pages) > 200
    seen = {name.partition(":")[0] for name, allowed in pages.items() if OTHER in allowed}
    assert seen <= {model for model, sight in sights().items() if not (sight.partner or sight.subject or sight.person)}
    part = written(pages, tried_services(ASK_NOTHING))
    if os.environ.get("WRITE_ROLES"):
        write(part)
    differing = list(difflib.unified_diff(in_document().splitlines(), part.splitlines(), "docs/roles.md", "tried", n=0))
    assert differing == [], "\n".join([*differing, "python -m tests.roles writes what was tried; look at each change."])
