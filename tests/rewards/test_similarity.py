"""The three similarities: ours by hand, the published ones against their authors' definitions, and attacks on each."""

import difflib
import json
import re
import time
from pathlib import Path

import pytest

from crrl.errors import UsageError
from crrl.rewards import combine
from crrl.rewards.similarity import DEFINITIONS, _hunks, changed_lines, changed_tokens, predecessor, swe_rl
from crrl.unified_diff import parse

FIX = """\
diff --git a/shop.py b/shop.py
--- a/shop.py
+++ b/shop.py
@@ -1,6 +1,7 @@ def total(xs):
 def total(xs):
     s = 0
     for x in xs:
-        s = x
+        s += x
     return s
 
+TOTAL = total
"""


def changing(lines: list[str], path: str = "shop.py") -> str:
    old = sum(line[:1] != "+" for line in lines)
    new = sum(line[:1] != "-" for line in lines)
    head = f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1,{old} +1,{new} @@\n"
    return head + "".join(f"{line}\n" for line in lines)


def test_by_hand() -> None:
    assert changed_lines(FIX, FIX) == 1.0
    # removed: 1 of 1; added: 2 * 1 / (1 + 2); their harmonic mean
    half = changing([" def total(xs):", "-        s = x", "+        s += x"])
    assert changed_lines(half, FIX) == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))
    # one of two files; the mean over the union
    assert changed_lines(FIX + changing(["+x"], "other.py"), FIX) == pytest.approx(0.5)
    # a fix that only adds: removed lines of mine count against me
    added = changing([" a", "+b", "+c"])
    assert changed_lines(changing([" a", "+b"]), added) == pytest.approx(2 / 3)
    assert changed_lines(changing(["-a", "+b", "+c"]), added) == pytest.approx(4 / 5)
    # white space at ends, blank lines, headers and sections count for nothing
    same = FIX.replace("s += x", "s += x  ").replace("+TOTAL", "+\n+TOTAL").replace("+1,7", "+1,8")
    assert changed_lines(same.replace("@@ def total(xs):", "@@"), FIX) == 1.0


def test_tokens_by_hand() -> None:
    fix = changing(["-    return a + b", "+    return a - b"])
    assert changed_tokens(fix, fix) == 1.0
    # net of the fix: -{+} +{-}; of mine: -{+} +{-, 1, *}: 1 and 2 * 1 / (1 + 3)
    mine = changing(["-    return a + b", "+    return a - 1 * b"])
    assert changed_tokens(mine, fix) == pytest.approx(2 * 1.0 * 0.5 / 1.5)
    assert changed_lines(mine, fix) == 0.0
    # the fix only adds tokens: mine adds one of two
    adds = changing(["-    if a:", "+    if a and b:"])
    assert changed_tokens(changing(["-    if a:", "+    if a or b:"]), adds) == pytest.approx(2 * 1 / (2 + 2))
    # put back as it was, with a mark, with a comment: nothing
    for line in ("    return a + b ;", "    return a + b  # a - b", "        return a + b"):
        assert changed_tokens(changing(["-    return a + b", f"+{line}"]), fix) == 0.0


@pytest.mark.parametrize("patch", ["", "N/A", "nonsense\n", "@@ -1 +1 @@\n-a\n+b\n"])
def test_an_unusable_patch_has_nothing(patch: str) -> None:
    for similar in DEFINITIONS.values():
        assert similar(patch, FIX) == 0.0


def known_fixes(test_data: Path) -> list[str]:
    import pyarrow.parquet as pq

    table = pq.read_table(test_data / "swe-bench" / "SWE-bench_Verified" / "test.parquet")
    return [row["patch"] for row in table.to_pylist()][:200]


def attacked(fix: str, kind: str) -> str:
    """A cheap imitation of a known fix, in the right file and place."""
    shown = []
    for part in parse(fix):
        for hunk in part.hunks:
            body = []
            for line in hunk.body:
                if kind == "comment" and line[0] in "-+":
                    if line[0] == "-":
                        body.append(" " + line[1:])
                    if not any(x.startswith("+") for x in body):
                        body.append("+# fixed")
                elif kind == "deleted" and line[0] == "+":
                    continue
                elif kind == "commented out" and line[0] == "+":
                    body.append("+# " + line[1:].strip())
                elif kind == "put back" and line[0] in "-+":
                    body += [line, f"+{line[1:]} ;"] if line[0] == "-" else []
                elif kind == "emptied" and line[0] == "+":
                    body.append("+pass")
                else:
                    body.append(line)
            shown.append(changing(body, part.path))
    return "".join(shown)


@pytest.mark.parametrize("kind", ["comment", "deleted", "commented out", "emptied", "put back"])
def test_cheap_imitations_of_known_fixes_are_paid_nothing(test_data: Path, kind: str) -> None:
    fixes = [fix for fix in known_fixes(test_data) if all(any(x[0] == "-" for x in p.lines) for p in parse(fix))]
    fixes = [fix for fix in fixes if all(any(x[0] == "+" for x in p.lines) for p in parse(fix))]
    assert len(fixes) > 100
    for similar, most in ((changed_lines, 0.01), (changed_tokens, 0.03)):
        assert sum(similar(attacked(fix, kind), fix) for fix in fixes) / len(fixes) < most


def test_the_published_ones_are_paid_for_a_comment_as_was_measured(test_data: Path) -> None:
    fixes = [fix for fix in known_fixes(test_data) if len(fix) < 2_000][:25]
    for similar, least in ((swe_rl, 0.25), (predecessor, 0.35)):
        assert sum(similar(attacked(fix, "comment"), fix) for fix in fixes) / len(fixes) > least


def predictions(test_data: Path) -> list[tuple[str, str]]:
    import pyarrow.parquet as pq

    table = pq.read_table(test_data / "swe-bench" / "SWE-bench_Verified" / "test.parquet")
    fixes = {row["instance_id"]: row["patch"] for row in table.to_pylist()}
    found = []
    for file in sorted((test_data / "swe-bench" / "predictions").glob("*.jsonl")):
        for row in map(json.loads, file.read_text().splitlines()):
            patch = row.get("model_patch") or row.get("patch") or ""
            if row["instance_id"] in fixes:
                found.append((patch, fixes[row["instance_id"]]))
    return found


def test_swe_rl_is_the_published_one(test_data: Path) -> None:
    """Written down here as the paper's code says it, by other means: hunks cut out of the text."""

    def files(patch: str) -> dict[str, str]:
        found = {}
        for part in re.split(r"(?m)^(?=diff --git )", patch):
            if match := re.search(r"(?m)^\+\+\+ (?:b/)?(.*?)\t?$", part):
                path = match[1] if match[1] != "/dev/null" else re.search(r"(?m)^--- a/(.*)$", part)[1]  # type: ignore[index]
                hunks = re.split(r"(?m)^(?=@@ )", part)[1:]
                found[path] = "\n".join(hunk.strip() for hunk in hunks)
        return found

    unusual = r"(?m)^@@ -\d+ |^@@ -\d+,\d+ \+\d+ @@|^rename |^GIT binary"
    pairs = [pair for pair in predictions(test_data) if len("".join(pair)) < 5_000]
    pairs = [pair for pair in pairs if not re.search(unusual, "".join(pair))]
    pairs = [(patch, fix) for patch, fix in pairs if _hunks(patch)]  # the package can read it
    assert len(pairs) > 10
    for patch, fix in pairs[:25]:
        mine, theirs = files(patch), files(fix)
        wanted = sum(
            difflib.SequenceMatcher(None, mine[path], theirs[path], autojunk=False).ratio()
            for path in mine.keys() & theirs.keys()
        )
        assert swe_rl(patch, fix) == pytest.approx(wanted / len(mine.keys() | theirs.keys()), abs=1e-9)


def test_predecessors_is_its_published_one() -> None:
    """Values by its own code (commit 2b36cad), on pairs of its own tests' kind."""
    other = FIX.replace("s += x", "s = s + x")
    whole = difflib.SequenceMatcher(None, FIX.strip(), other.strip()).ratio()
    assert predecessor(other, FIX) == pytest.approx(whole, abs=1e-9)
    assert predecessor(other + FIX.replace("shop", "more"), FIX) == pytest.approx(whole / 2, abs=1e-9)
    assert predecessor(FIX, FIX) == 1.0
    assert predecessor("", "") == 0.0


def test_the_definition_is_a_setting() -> None:
    weigh = combine({"diff_similarity": 1.0}, {"diff_similarity": {"definition": "swe_rl"}})
    assert weigh.rewards["diff_similarity"].definition == "swe_rl"  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="swe_rl"):
        combine({"diff_similarity": 1.0}, {"diff_similarity": {"definition": "swe-rl"}})


def test_pairs_of_200_lines_end_in_any_case() -> None:
    lines = [f"{'-+'[i % 2]}    value_{i} = compute({i % 17})" for i in range(200)]
    pair = changing(lines), changing([line.replace("17", "3") if i % 5 == 0 else line for i, line in enumerate(lines)])
    started = time.process_time()
    for _ in range(10):
        changed_lines(*pair)
    assert time.process_time() - started < 10  # of a bound that any machine keeps; it takes 0.01 s
