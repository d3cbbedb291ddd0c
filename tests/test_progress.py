"""What a log is told of a long run."""

import pytest

from thalweg import progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_a_minute_with_the_time_left(clock, capsys):
    with progress.shown() as told:
        # 400 steps of an earlier run do not count: 3 steps a second from here on.
        for second in range(0, 181, 20):
            clock[0] = 100.0 + second
            told("a run", 400 + 3 * second, 1300)
    assert capsys.readouterr().err.splitlines() == [
        "thalweg: a run: 580 of 1300, 4 min left",
        "thalweg: a run: 760 of 1300, 3 min left",
        "thalweg: a run: 940 of 1300, 2 min left",
    ]


def test_short_runs_say_nothing(clock, capsys):
    with progress.shown() as told:
        told("a run", 0, 10)
        clock[0] += 59
        told("a run", 10, 10)
    assert capsys.readouterr().err == ""


def test_no_time_is_told_where_nothing_has_moved_or_all_is_done(clock, capsys):
    with progress.shown() as told:
        clock[0] += 60
        told("first", 0, 10)
        told("second", 0, 10)
        clock[0] += 60
        told("second", 10, 10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["thalweg: first: 0 of 10", "thalweg: second: 10 of 10"]


@pytest.mark.parametrize(
    ("seconds", "words"), [(7.2, "7 s"), (99.9, "100 s"), (360, "6 min"), (9000, "2.5 h")]
)
def test_durations(seconds, words):
    assert progress.duration(seconds) == words
