"""Each heading of the page that the project was made from has its section in ``docs/seed-map.md``, with rows."""

from __future__ import annotations

import re

import pytest

from tests.support.source import ROOT

# The page itself is no part of the project; these are its headings, in its order and on its levels.
HEADINGS = [
    "# Create a secure partner application",
    "## Create a Partner Center service principal",
    "## Create a multi-tenant application in the CSP partner's tenant",
    "## Apply permissions",
    "## Provide consent link",
    "### Multi tenant application",
    "### Get authorization code",
    "### Get refresh token",
    "#### Sample call",
    "## Set up key vault",
    "## Provide access to the key vault",
    "## Configure the prototype",
    "## Partner consent application (CSP)",
    "### CSP web configuration",
    "### CSP application configuration",
    "## Partner consent application (CPV)",
    "### CPV web configuration",
    "### CPV application configuration",
]
COLUMNS = ["The page says", "The portal does", "Where", "What differs today, and why"]
PAGE = (ROOT / "docs/seed-map.md").read_text()


def sections() -> list[tuple[str, str]]:
    """Return heading and text of each section below the title."""
    pieces = re.split(r"^(#{2,4} .+)$", PAGE, flags=re.MULTILINE)[1:]
    return list(zip(pieces[::2], pieces[1::2], strict=True))


def table(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_sections_are_the_headings_of_the_page_in_its_order() -> None:
    ours = [heading.lstrip("#") for heading, _ in sections()]
    assert ours == [*(heading.lstrip("#") for heading in HEADINGS), " The map of keys"]


@pytest.mark.parametrize(("heading", "text"), sections()[:-1], ids=[heading for heading, _ in sections()[:-1]])
def test_each_section_says_what_we_do_where_and_what_differs(heading: str, text: str) -> None:
    head, *rows = table(text)
    assert head == COLUMNS
    assert rows
    for row in rows:
        assert len(row) == len(COLUMNS), row
        assert all(row), row
        assert re.search(r"`[\w/.-]+`|\]\([\w.#/-]+\)", row[2]), row
