"""Charts that the server draws."""

from __future__ import annotations

from portal.site.charts import Chart


def test_a_line_goes_from_the_first_day_to_the_last_within_its_frame() -> None:
    chart = Chart(title="Partners", points=[("2026-01-01", 10), ("2026-01-02", 30), ("2026-01-03", 20)])
    corners = [tuple(map(float, one.split(","))) for one in chart.path.split()]
    assert [across for across, _ in corners] == [4.0, 160.0, 316.0]
    ups = [up for _, up in corners]
    assert (ups[0], ups[1], ups[2]) == (68.0, 4.0, 36.0)  # the most stands at the top
    assert chart.end == ("316.0", "36.0")
    assert chart.change == "+10 in 3 days"
    assert chart.rows[0] == ("2026-01-03", "20")


def test_a_day_alone_is_a_flat_line_and_no_day_is_none() -> None:
    alone = Chart(title="Partners", points=[("2026-01-01", 1000)])
    assert alone.path == "4.0,36.0 316.0,36.0"
    assert (alone.change, alone.latest_words) == ("", "1,000")
    nothing = Chart(title="Partners", points=[])
    assert (nothing.path, nothing.change, nothing.latest) == ("", "", 0)
