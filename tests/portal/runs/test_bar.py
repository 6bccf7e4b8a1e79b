"""What somebody sees on a terminal while a run is worked."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from rich.console import Console
from rich.live import Live

from portal.runs.bar import Bar
from portal.runs.console import foreground, words_of
from portal.runs.listening import Progress
from tests.support.work import GOOD, THEIRS, Work


def test_a_terminal_shows_rate_time_left_counts_and_what_is_slow() -> None:
    screen = Console(file=io.StringIO(), width=200, force_terminal=False)
    bar = Bar("Token check", Live(console=screen))
    progress = Progress(
        total=1000,
        done=400,
        running=64,
        classes=Counter(ok=390, needs_consent=10),
        rate=100.0,
        slowest={"partner_center": 0.25, "vault:x": 0.05},
        throttled=3,
    )
    screen.print(bar._picture(progress))
    assert isinstance(screen.file, io.StringIO)
    text = screen.file.getvalue()
    for part in ("400/1,000", "40%", "100/s", "0:00:06 left", "390 ok, 10 needs_consent", "3 times thr", "64 at work"):
        assert part in text
    assert text.index("partner_center 250 ms") < text.index("vault 50 ms")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.django_db(transaction=True)
def test_on_a_terminal_what_failed_stands_above_the_picture_and_the_summary_below(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Work(number=3, answer=lambda key, attempt: THEIRS if key == 2 else GOOD).start()
    terminal = Terminal()
    assert foreground(run, out=terminal, err=terminal, as_json=False, words=words_of) == 1
    assert "needs_consent  unit 2: The partner must consent." in capsys.readouterr().out
    assert terminal.getvalue() == f"Test work, run {run.pk}: 3 of 3: 1 needs_consent, 2 ok"
