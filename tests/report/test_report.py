"""What people look at: the page escapes what models write; numbers are those of the summary."""

import io
import json
import re
import threading
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from crrl.console.display import Display
from crrl.console.plain import clean, seconds
from crrl.console.time_breakdown import TimeBreakdown, peak_memory_bytes
from crrl.report.curve import Mark, Series, curve_svg, smooth
from crrl.report.exploit_rate import exploit_line, exploit_rates
from crrl.report.html import Step, Transcript, Turn, render, small_curves, write_report
from crrl.report.summary import Summary, next_steps, print_closing, write_atomically
from crrl.rewards.signals import COUNTS

HOSTILE = "</pre></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&\x1b[2J\u202e{{ 7*7 }}"


def summary(name: str = "r", split: str = "rl_instances") -> Summary:
    before = {"solved": 18, "total": 100, "rate": 0.18, "ci95": [0.12, 0.27], "well_formed": 0.97}
    after = {"solved": 70, "total": 100, "rate": 0.70, "ci95": [0.60, 0.78], "well_formed": 0.96}
    difference = {"points": 52.0, "ci95": [40.0, 62.0], "p": 1e-9}
    return Summary(
        run=name,
        seed=3,
        splits={split: {"sampled": {"before": before, "after": after, "difference": difference}}},
        random_floor={split: {"rate": 0.03, "solved": 3, "total": 100, "ci95": [0.01, 0.08]}},
        episodes={"scored": 200, "truncated": 3, "lost": 2},
        seconds={"train": 60.0, "total": 100.0},
    )


def test_how_the_agent_worked_is_told_where_it_made_calls() -> None:
    told = summary()
    assert "How the agent worked" not in render(told)
    process = dict(zip(COUNTS, (1.25, 2.5, 0.5, 0.75, 0.0, 1.5), strict=True))
    told.splits["rl_instances"]["sampled"]["after"]["process"] = process
    page = render(told)
    assert all(text in page for text in ("How the agent worked", "turns before edit", "<td>1.25</td>", "<td>0.75</td>"))


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_hostile_text_never_becomes_markup() -> None:
    transcript = Transcript(
        HOSTILE,
        HOSTILE,
        HOSTILE,
        "scored",
        True,
        1.0,
        [Turn(HOSTILE, HOSTILE)],
        HOSTILE,
        [HOSTILE],
        HOSTILE,
    )
    page = render(
        summary(HOSTILE, HOSTILE),
        [Step(1, {"solved": 0.5, HOSTILE: 1.0})],
        [transcript],
        HOSTILE,
        notice=HOSTILE,
    )
    tags = Tags()
    tags.feed(page)
    names = {name for name, _ in tags.seen}
    assert not names & {"script", "img", "iframe", "object", "link"}
    assert not [a for _, attributes in tags.seen for a in attributes if a.startswith("on")]
    assert "alert(1)" in page and "{{ 7*7 }}" in page  # shown, as text, not evaluated
    pre = page.split("<pre>")[1].split("</pre>")[0]
    assert "\x1b" not in pre and "\u202e" not in pre and "\\x1b[2J" in pre


def test_the_page_loads_nothing_and_is_written_whole(tmp_path: Path) -> None:
    path = write_report(tmp_path, summary(), [Step(i, {"solved": i / 9, "entropy": 1 / (i + 1)}) for i in range(9)])
    page = path.read_text()
    tags = Tags()
    tags.feed(page)
    assert not [a for _, attributes in tags.seen for a in attributes if a in ("src", "href")]
    for shown in ("18% (12–27)", "70% (60–78)", "+52 [+40, +62]", "&lt; 0.0001", "97", "entropy"):
        assert shown in page
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_an_endless_turn_is_cut() -> None:
    turn = Turn("assistant", "x" * 1_000_000)
    page = render(summary(), [], [Transcript("e", "t", "after", "scored", False, 0.0, [turn])])
    assert len(page) < 60_000 and "980000 more characters" in page


def test_a_run_without_results_has_a_page_too() -> None:
    assert "Nothing was evaluated yet" in render(Summary(run="r", seed=0))


def test_summary_json_and_the_closing_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    one = summary()
    value = json.loads(one.write(tmp_path).read_text())
    assert value["schema"] == 1 and value["versions"]["python"] and value["machine"]
    assert value["splits"]["rl_instances"]["sampled"]["difference"]["p"] == 1e-9
    print_closing(one, "Run x", next_steps(one.run, recipe="classify"))
    text = capsys.readouterr().out
    for shown in (
        "18% (12–27)",
        "70% (60–78)",
        "+52 [+40, +62]",
        "< 0.0001",
        "96%",
        "3%",
        "2 lost",
        "crrl train classify corpus.name=YOUR.jsonl",
        "resume=r",
    ):
        assert shown in text
    assert max(len(line) for line in text.split("Next:")[0].splitlines()) <= 80
    assert "resumed" not in text + render(one)
    one.earlier_episodes = 65
    print_closing(one, "Run x", "")
    assert "since it was resumed after 65 episodes" in " ".join(capsys.readouterr().out.split())
    assert "since the run was resumed, after 65 episodes" in render(one)


def test_a_failed_write_leaves_the_old_file_and_no_half(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_display_in_plain_lines() -> None:
    stream = io.StringIO()
    with Display(stream=stream) as display:
        display.phase("evaluate before", 2)
        display.advance(1, solve=0.5)
        display.advance(1, solve=0.25)
        display.note("worker restarted \x1b[2J")
        display.phase("train", 0)
        display.close()
    text = stream.getvalue()
    assert "evaluate before 2/2  solved 25%" in text and "\x1b" not in text and "\\x1b[2J" in text


def test_display_outlives_its_stream_and_takes_many_threads() -> None:
    stream = io.StringIO()
    display = Display(stream=stream)
    display.phase("train", 800)
    threads = [threading.Thread(target=lambda: [display.advance() for _ in range(100)]) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert "800/800" in stream.getvalue()
    stream.close()
    display.note("still running")
    display.close()


def test_display_live() -> None:
    stream = io.StringIO()
    display = Display(live=True, stream=stream)
    display.phase("evaluate before", 4)
    display.advance(4, solve=0.5)
    display.phase("train", 10)
    display.advance(5, reward=0.4)
    display.close()
    display.close()
    assert "evaluate before" in stream.getvalue() and "reward 0.40" in stream.getvalue()


def test_curve() -> None:
    assert smooth([0, 3, 0], 3) == [1.5, 1.0, 1.5]
    svg = curve_svg([Series("a", [(0, 0.0), (10, 1.0)])], [Mark(10, 0.5, (0.4, 0.6), 0, "<x>")], standalone=True)
    assert "<polyline" in svg and "&lt;x&gt;" in svg and "<x>" not in svg
    assert "<svg" in curve_svg([])


def test_curves_of_negative_numbers() -> None:
    """log_ratio_p01, overlong and many a loss lie below 0: the lowest point is the lowest in the drawing."""
    steps = [Step(k, {"overlong": value}) for k, value in enumerate([-0.5, -0.1, -0.3])]
    ((name, svg),) = small_curves(steps)
    heights = [float(y) for y in re.findall(r'class="dot f0" cx="[\d.]+" cy="([\d.]+)"', svg)]
    assert name == "overlong" and heights[0] > heights[2] > heights[1]


def test_time_breakdown_adds_up() -> None:
    breakdown = TimeBreakdown()
    for _ in range(2):
        with breakdown("work"):
            time.sleep(0.05)
        breakdown.add_timings({"judge": 0.25})
    parts = breakdown.parts()
    assert 0.1 <= parts["work"] < 2 and parts["episode judge"] == 0.5
    assert peak_memory_bytes() > 10 << 20


def test_words_for_seconds_and_control_characters() -> None:
    assert [seconds(s) for s in (0.5, 48, 571, 7500)] == ["0.5 s", "48 s", "9 m 31 s", "2 h 05 m"]
    assert clean("a\tb\nc\x00\x9b\u202e") == "a\tb\nc\\x00\\x9b\\u202e"


COUNTED = [("before", []), ("before", ["early_exit"]), ("train", ["early_exit", "edited_tests"]), ("after", [])]


def test_exploits_are_counted_by_phase_and_by_name() -> None:
    rates = exploit_rates(COUNTED)
    assert (rates["rate"], rates["episodes"], rates["total"]) == (0.5, 2, 4)
    assert rates["by_name"] == {"early_exit": 2, "edited_tests": 1}
    assert {phase: of["episodes"] for phase, of in rates["phases"].items()} == {"before": 1, "training": 1, "after": 0}
    line = exploit_line(rates)
    assert line.startswith("Attempted exploits: 2 of 4 episodes (50.0%): early_exit 2, edited_tests 1")
    assert "before 50.0%, training 100.0%, after 0.0%" in line
    assert exploit_line(exploit_rates([])) == ""
    assert exploit_rates([("train", ["\x1b[2J of the judged process"])])["by_name"] == {"other": 1}


def test_exploits_are_shown_in_table_and_page(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    tried, honest = summary(), summary()
    tried.exploits, honest.exploits = exploit_rates(COUNTED), exploit_rates([("train", [])] * 3)
    for one, shown in ((tried, "early_exit 2"), (honest, "Attempted exploits: 0 of 3 episodes (0.0%)")):
        print_closing(one, "Run x")
        assert shown in capsys.readouterr().out
    page = render(tried)
    assert "<code>early_exit</code>" in page and "ends the process that runs the tests" in page
    assert "0 of 3 episodes" in render(honest) and "what it is" not in render(honest)
