"""The stage timeline: what ran side by side, without the time in which nothing ran."""

from __future__ import annotations

from xml.etree import ElementTree

from prosetting.core.journal_rows import Span
from prosetting.managers import charts
from prosetting.managers.report_page import STAGE_COLOURS, ZONE_SERIES
from prosetting.managers.timeline import timeline_of


def span(name: str, began_at: float, ended_at: float | None, outcome: str = "done", round_: int = 1) -> Span:
    return Span(round_, name, began_at, ended_at, outcome, "")


def test_time_without_any_work_is_cut_out() -> None:
    found = timeline_of(
        [span("data_collection", 100, 110), span("data_grading", 104, 112), span("trl_training", 9_000, 9_030)], 0
    )
    assert [(bar.begin_s, bar.end_s) for bar in found.bars] == [(0, 10), (4, 12), (12, 42)]
    assert (found.length_s, found.cuts) == (42, [12])
    assert found.lanes == ["data_collection", "data_grading", "trl_training"]


def test_what_is_running_ends_now_and_the_overlap_is_told() -> None:
    found = timeline_of([span("data_collection", 0, 10), span("data_grading", 0, None, "running")], now=20)
    assert found.bars[1].end_s == 20
    assert found.overlap == 1.5


def test_of_many_rounds_the_last_ones_are_drawn() -> None:
    spans = [span("data_collection", 10 * r, 10 * r + 9, round_=r) for r in range(1, 31)]
    found = timeline_of(spans, 0, last_rounds=3)
    assert [band.round for band in found.rounds] == [28, 29, 30]


def test_charts_are_well_formed_and_say_in_words_what_they_show() -> None:
    timeline = timeline_of([span("data_collection", 0, 10), span("trl_training", 8, 30, "failed", round_=2)], 0)
    for chart in (
        charts.gantt(timeline, STAGE_COLOURS),
        charts.stacked_shares("By <zone>", [("round 1", {"mastered": 3, "too_hard": 1})], ZONE_SERIES),
    ):
        root = ElementTree.fromstring(chart)
        assert root.get("role") == "img"
        assert "round" in (root.get("aria-label") or "")
        assert "style=" not in chart


def test_nothing_gives_no_chart() -> None:
    assert charts.gantt(timeline_of([], 0), STAGE_COLOURS) == ""
    assert charts.stacked_shares("x", [("round 1", {})], ZONE_SERIES) == ""
