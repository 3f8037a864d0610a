"""Progress lines where there is no terminal."""

import pytest

from crossalign.cli.console import Progress


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def lines(seconds_each: float, count: int, capfd: pytest.CaptureFixture[str], first: int = 1) -> list[str]:
    clock = Clock()
    with Progress(count, "pair", clock) as progress:
        for number in range(first, count + 1):
            clock.seconds += seconds_each
            progress.advance("note", number)
    out, err = capfd.readouterr()
    assert out == ""
    return err.splitlines()


def test_a_quick_command_says_nothing(capfd) -> None:
    assert lines(0.01, 300, capfd) == []


def test_a_line_every_tenth_of_the_way(capfd) -> None:
    found = lines(1.0, 100, capfd)
    assert len(found) == 10
    assert found[0] == "crossalign: 10 of 100 pairs, 10 s, about 90 s left: note"


def test_a_line_every_30_seconds_of_a_slow_one(capfd) -> None:
    assert len(lines(15.0, 1000, capfd)) == 500


def test_a_run_that_goes_on_counts_its_own_time(capfd) -> None:
    assert lines(10.0, 100, capfd, first=51)[0] == "crossalign: 53 of 100 pairs, 30 s, about 470 s left: note"
