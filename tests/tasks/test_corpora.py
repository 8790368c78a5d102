"""Every loader over every file of real records: counts, records by value, and malformed ones named where they stand."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from crrl.errors import CrrlError, UsageError
from crrl.task import Task
from crrl.tasks.corpora import CORPORA, defects4j, find, load
from crrl.tasks.corpora.corpus import Loaded
from crrl.tasks.diffs import touched
from crrl.tasks.files import load_tasks, write_tasks

# corpus, what it is read from, tasks by split
EVERYTHING = [
    ("swe-bench-verified", "swe-bench/SWE-bench_Verified/test.parquet", {"test": 314}),
    ("swe-bench-verified", "swe-bench/legacy/SWE-bench_Verified.test.sample.jsonl", {"test": 12}),
    ("swe-bench-lite", "swe-bench/SWE-bench_Lite", {"test": 68, "dev": 11}),
    ("swe-bench", "swe-bench/SWE-bench/dev.parquet", {"dev": 38}),
    ("swe-bench-multilingual", "swe-bench/SWE-bench_Multilingual", {"test": 195}),
    ("swe-gym", "swe-gym/SWE-Gym.train.sample.parquet", {"train": 6}),
    ("swe-gym", "swe-gym/SWE-Gym.train.sample.jsonl", {"train": 6}),
    ("swe-smith", "swe-smith", {"train": 1}),
    ("swe-bench-pro", "swe-bench-pro", {"test": 10}),
    ("gitbug-java", "gitbug-java", {"test": 21}),
    ("bugsinpy", "bugsinpy", {"test": 46}),
    ("quixbugs", "quixbugs", {"python": 26, "java": 26}),
    ("polyglot", "polyglot", dict.fromkeys(("cpp", "go", "java", "javascript", "python", "rust"), 5)),
]


def one(test_data: Path, corpus: str, path: str, id: str) -> Task:
    (task,) = load(find(corpus), test_data / path, ids=[id]).tasks
    return task


@pytest.mark.parametrize(("corpus", "path", "counts"), EVERYTHING)
def test_every_record_at_hand_is_a_task(test_data: Path, corpus: str, path: str, counts: dict[str, int]) -> None:
    loaded = load(find(corpus), test_data / path)
    assert loaded.problems == []
    assert Counter(task.split for task in loaded.tasks) == counts
    for task in loaded.tasks:
        assert task.corpus == corpus
        assert task.test.fail_to_pass or task.test.baseline
        assert not set(task.test.fail_to_pass) & set(task.test.pass_to_pass)
        if task.corpus != "swe-bench-pro":  # its hub rows are not at hand
            assert task.issue.strip() and task.solution and touched(task.solution) and task.language
        if task.source.files is not None:  # the repair is nowhere an agent looks
            shown = "\n".join([task.issue, *task.source.files.values()]).splitlines()
            added = [line[1:] for line in (task.solution or "").splitlines() if line[:1] == "+" and line[:3] != "+++"]
            assert not all(line in shown for line in added)


def test_tasks_of_corpora_are_written_and_read(test_data: Path, tmp_path: Path) -> None:
    tasks = [task for name, path, _ in EVERYTHING[3:] for task in load(find(name), test_data / path).tasks]
    tasks = list({task.id: task for task in tasks}.values())
    write_tasks(tmp_path / "tasks.jsonl", tasks)
    assert load_tasks(tmp_path / "tasks.jsonl", measured=False) == (tasks, [])
    usable, problems = load_tasks(tmp_path / "tasks.jsonl")
    assert {task.test.baseline for task in usable} == {False} and len(usable) + len(problems) == len(tasks)
    assert "crrl tasks check" in str(problems[0])


def test_the_hub_s_library_gives_the_same_rows(
    test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`datasets` reads a folder as it reads a data set of the hub; a name that is not there says what to do instead."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "set").mkdir()
    shutil.copy(test_data / "swe-gym/SWE-Gym.train.sample.parquet", tmp_path / "set" / "train.parquet")
    gym = find("swe-gym")
    assert gym.fetch is not None
    assert list(gym.fetch(str(tmp_path / "set"), "train")) == load(gym, tmp_path / "set").tasks
    with pytest.raises(CrrlError, match="cannot be loaded") as caught:
        list(gym.fetch("nobody/no-such-set", "train"))
    assert "path=FILE" in caught.value.remedy


# By value ------------------------------------------------------------------------------------------------------------


def test_swe_bench_row_of_version_5(test_data: Path) -> None:
    task = one(test_data, "swe-bench-verified", "swe-bench/SWE-bench_Verified", "astropy__astropy-12907")
    assert task.source.repo == "https://github.com/astropy/astropy"
    assert task.source.base_commit == "d16bfe05a744909de4b27f5875fe0d4ed41ce607"
    assert task.source.image == "swebench/sweb.eval.x86_64.astropy_1776_astropy-12907:latest"
    assert (len(task.test.fail_to_pass), len(task.test.pass_to_pass)) == (2, 13)
    assert task.test.parser == "swebench:parse_log_astropy:pass_and_fail"
    assert task.test.command.argv[2].startswith("#!/bin/bash\nset -uxo pipefail\n")
    assert task.test.protect == ["astropy/modeling/tests/test_separable.py"] and task.test.test_patch == ""
    assert task.created_at == "2022-03-03T15:14:54Z"
    assert task.provenance["difficulty"] == "15 min - 1 hour" and task.provenance["version"] == "4.3"


def test_an_older_row_says_the_same_of_the_same_bug(test_data: Path) -> None:
    new = one(test_data, "swe-bench-verified", "swe-bench/SWE-bench_Verified", "astropy__astropy-12907")
    old = one(test_data, "swe-bench-verified", "swe-bench/legacy", "astropy__astropy-12907")
    assert (old.source, old.solution, old.issue) == (new.source, new.solution, new.issue)
    assert old.test.fail_to_pass == new.test.fail_to_pass and old.test.parser == new.test.parser
    assert old.test.command.argv[2].endswith(
        "\npytest -rA astropy/modeling/tests/test_separable.py test_CRRL_CANARY.py"
    )
    assert touched(old.test.test_patch) == new.test.protect


def test_older_rows_run_what_the_official_script_runs(test_data: Path) -> None:
    """For every row of version 5: our own command for older ones is in its script, with the same parser."""
    from crrl.tasks.corpora.rows import diff
    from crrl.tasks.corpora.swe_rows import commanded

    rows = pyarrow.parquet.read_table(test_data / "swe-bench/SWE-bench_Verified/test.parquet").to_pylist()
    tasks = {
        task.id: task for task in load(find("swe-bench-verified"), test_data / "swe-bench/SWE-bench_Verified").tasks
    }
    differing = []
    for row in rows:
        plan = tasks[row["instance_id"]].test
        ours = commanded(plan, row["repo"], diff(row, "test_patch"))
        assert ours.parser == plan.parser
        own = ours.command.argv[2].removesuffix(" test_CRRL_CANARY.py")  # with a test of the judge's own behind it
        command, *files = own.splitlines()[1].rsplit(" ", len(touched(row["test_patch"])))
        if not all(word in row["eval_script"] for word in (command, *files)):
            differing.append(row["instance_id"])
    assert len(differing) <= len(rows) * 0.05, differing


def test_multilingual_lists_are_lists_and_languages_are_told(test_data: Path) -> None:
    tasks = load(find("swe-bench-multilingual"), test_data / "swe-bench/SWE-bench_Multilingual").tasks
    druid = next(task for task in tasks if task.id == "apache__druid-13704")
    assert druid.test.fail_to_pass == ["org.apache.druid.query.aggregation.post.ArithmeticPostAggregatorTest#testPow"]
    assert (druid.language, druid.test.parser) == ("java", "swebench:parse_log_maven:pass_and_fail")
    assert {"java", "go", "rust", "php", "ruby", "javascript", "c"} < {task.language for task in tasks}


def test_swe_gym_has_no_image_column(test_data: Path) -> None:
    task = one(test_data, "swe-gym", "swe-gym/SWE-Gym.train.sample.parquet", "getmoto__moto-5085")
    assert task.source.image == "xingyaoww/sweb.eval.x86_64.getmoto_s_moto-5085:latest"
    assert task.test.fail_to_pass == [
        "tests/test_ec2/test_instances.py::test_create_instance_from_launch_template__process_tags"
    ]
    assert task.test.parser == "swebench:parse_log_pytest_options:pass_and_fail"
    assert task.test.command.argv[2].endswith("\npytest -rA tests/test_ec2/test_instances.py test_CRRL_CANARY.py")
    assert touched(task.test.test_patch) == ["tests/test_ec2/test_instances.py"]


def test_the_two_files_of_swe_gym_are_one(test_data: Path) -> None:
    table, lines = (
        load(find("swe-gym"), test_data / f"swe-gym/SWE-Gym.train.sample.{kind}") for kind in ("parquet", "jsonl")
    )
    assert table == lines


def test_swe_smith_repairs_by_the_reverse(test_data: Path) -> None:
    task = one(test_data, "swe-smith", "swe-smith", "pandas-dev__pandas.95280573.pr_53652")
    assert task.source.image == "jyangballin/swesmith.x86_64.pandas-dev_1776_pandas.95280573:latest"
    row = json.loads((test_data / "swe-smith/SWE-smith.sample.jsonl").read_text())
    assert task.source.patches == [row["patch"]]  # the image is from before the bug
    bug = [line for line in row["patch"].splitlines() if line.startswith(("- ", "+ "))]
    repair = [line for line in (task.solution or "").splitlines() if line.startswith(("- ", "+ "))]
    assert sorted(line.translate(str.maketrans("+-", "-+", "")) if line[0] in "+-" else line for line in bug) != bug
    assert {("+" if line[0] == "-" else "-") + line[1:] for line in bug} == set(repair)


@pytest.mark.parametrize(
    ("corpus", "path", "id", "line", "parser"),
    [
        (
            "swe-bench-verified",
            "swe-bench/SWE-bench_Verified",
            "pytest-dev__pytest-5840",
            "pytest -rA testing/test_conftest.py",
            "parse_log_pytest",
        ),
        (
            "swe-bench-verified",
            "swe-bench/SWE-bench_Verified",
            "sphinx-doc__sphinx-8475",
            "pytest -rA tests/test_build_linkcheck.py",
            "parse_log_sphinx",
        ),
        (
            "swe-gym",
            "swe-gym/SWE-Gym.train.sample.parquet",
            "getmoto__moto-5085",
            "pytest -rA tests/test_ec2/test_instances.py",
            "parse_log_pytest_options",
        ),
    ],
)
def test_without_images(test_data: Path, corpus: str, path: str, id: str, line: str, parser: str) -> None:
    """Rows of either kind: the repository's command, and the test patch is put back by the judge."""
    imageless = find(corpus).imageless
    assert imageless is not None
    (task,) = load(imageless, test_data / path, ids=[id]).tasks
    whole = one(test_data, corpus, path, id)
    assert (task.source.image, task.source.workdir, task.setup) == (None, "", [])
    assert task.source.base_commit == whole.source.base_commit and task.source.repo == whole.source.repo
    assert task.test.command.argv == ["bash", "-c", f"{line} test_CRRL_CANARY.py"]
    assert task.test.parser == f"swebench:{parser}:pass_and_fail"
    assert touched(task.test.test_patch) == whole.test.protect
    assert (task.test.fail_to_pass, task.issue) == (whole.test.fail_to_pass, whole.issue)


def test_corpora_of_other_languages_have_no_use_for_it() -> None:
    assert [name for name in ("swe-bench-multilingual", "quixbugs", "swe-smith") if find(name).imageless] == []


def test_swe_bench_pro_from_its_repository(test_data: Path, tmp_path: Path) -> None:
    id = "instance_ansible__ansible-cb94c0cc550df9e98f1247bc71d8c2b861c75049-v1055803c3a812189a1133297f7f5468579283f86"
    task = one(test_data, "swe-bench-pro", "swe-bench-pro", id)
    assert task.test.fail_to_pass == ["test/units/cli/test_adhoc.py::test_play_ds_positive"]
    assert len(task.test.pass_to_pass) == 8 and task.solution is None
    assert task.source.base_commit == "96c19724394a32b9d3c596966be2f46e478681f8" and task.source.workdir == "/app"
    assert (
        task.source.image
        == f"jefzda/sweap-images:ansible.ansible-{id.removeprefix('instance_')}"[: len("jefzda/sweap-images:") + 128]
    )
    # With a row of the hub beside it: lower-case lists as Python literals, and the scripts put back.
    shutil.copytree(test_data / "swe-bench-pro/run_scripts" / id, tmp_path / "run_scripts" / id)
    (tmp_path / "run_scripts" / id / "run_script.sh").write_text("echo run\n")
    row = {
        "instance_id": id,
        "repo": "ansible/ansible",
        "base_commit": task.source.base_commit,
        "patch": "--- a/lib/x.py\n+++ b/lib/x.py\n@@ -1 +1 @@\n-a\n+b\n",
        "test_patch": "--- a/test/t.py\n+++ b/test/t.py\n@@ -1 +1 @@\n-a\n+b\n",
        "problem_statement": "It is broken.",
        "requirements": "It must not be.",
        "interface": "",
        "repo_language": "python",
        "fail_to_pass": "['a::b', \"c's\"]",
        "pass_to_pass": "[]",
        "before_repo_set_cmd": "git reset --hard x\ngit checkout y -- test/t.py",
        "selected_test_files_to_run": "['test/t.py']",
        "dockerhub_tag": "tag",
    }
    (tmp_path / "test.jsonl").write_text(json.dumps(row))
    (whole,) = load(find("swe-bench-pro"), tmp_path).tasks
    assert whole.test.fail_to_pass == ["a::b", "c's"] and whole.source.image == "jefzda/sweap-images:tag"
    assert whole.test.restore == {".crrl/run_script.sh": "echo run\n"} and whole.issue.endswith("It must not be.")
    assert whole.test.command.argv[2].startswith("bash .crrl/run_script.sh test/t.py >")
    assert whole.test.restore_from == {"test/t.py": "y"}  # at the commit of the repair, which no box has
    (tmp_path / "test.jsonl").write_text(json.dumps(row | {"before_repo_set_cmd": "git stash"}))
    with pytest.raises(CrrlError, match="before_repo_set_cmd: not `git checkout COMMIT -- FILES`: git stash"):
        load(find("swe-bench-pro"), tmp_path)


def test_gitbug_java(test_data: Path) -> None:
    task = one(test_data, "gitbug-java", "gitbug-java", "Bindambc-whatsapp-business-java-api-362caf5eb33c")
    assert task.test.fail_to_pass == ["com.whatsapp.api.impl.WhatsappBusinessCloudApiTest::testSendTemplateTextMessage"]
    assert len(task.test.pass_to_pass) == 50 and task.test.needs == ["maven"]
    assert task.source.base_commit == "dec4ca17d1194c063e63197d214322f2149c4ee5" and len(task.source.patches) == 1
    assert task.issue.startswith("NoSuchMethodError while uploadMedia") and "expected: <{" in task.issue
    assert "fix send template" not in task.issue  # the commit message tells the repair
    tools = Counter(
        need for task in load(find("gitbug-java"), test_data / "gitbug-java").tasks for need in task.test.needs
    )
    assert tools == {"maven": 9, "gradle": 7, "junit": 5}


def test_all_tests_of_a_project_built_here_are_protected(test_data: Path) -> None:
    """In jwarc they stand in test/, and the corpus names only the file that the repair touched."""
    tasks = load(find("gitbug-java"), test_data / "gitbug-java").tasks
    jwarc = [task for task in tasks if task.family == "iipc/jwarc"]
    assert jwarc and all({"test/", "test-resources/"} <= set(task.test.protect) for task in jwarc)
    assert all("src/test/" in task.test.protect for task in tasks)


def test_bugsinpy(test_data: Path) -> None:
    """A file in UTF-16, unittest and tox names, carriage returns, `key ="v"`."""
    black = one(test_data, "bugsinpy", "bugsinpy", "bugsinpy-black-1")
    assert black.test.fail_to_pass == [
        "tests/test_black.py::BlackTestCase::test_works_in_mono_process_only_environment"
    ]
    (interpreter,) = black.test.needs
    assert interpreter == "python>=3.8"  # not older than the bug's 3.8.3
    one_by_one, own = black.setup
    listed = one_by_one.argv[one_by_one.argv.index("sh", 1) + 1 :]
    assert "click==7.1.1" in listed and not any(line.startswith(("black=", "pkg-resources")) for line in listed)
    assert own.argv[:3] == ["uv", "pip", "install"] and "2020-07-01" in own.argv
    assert black.test.command.argv[-2:] == ["tests/test_black.py", "test_CRRL_CANARY.py"]
    cookiecutter = one(test_data, "bugsinpy", "bugsinpy", "bugsinpy-cookiecutter-1")
    assert cookiecutter.test.fail_to_pass == [
        "tests/test_generate_context.py::test_generate_context_decodes_non_ascii_chars"
    ]
    youtube = one(test_data, "bugsinpy", "bugsinpy", "bugsinpy-youtube-dl-1")
    assert youtube.source.base_commit == "99036a1298089068dcf80c0985bfcc3f8c24f281"
    assert youtube.test.restore_from == {"test/test_utils.py": "1cc47c667419e0eadc0a6989256ab7b276852adf"}
    assert youtube.test.baseline and youtube.provenance["python"] == "3.7.0"
    assert touched(youtube.solution or "") == ["youtube_dl/utils.py"]


def test_quixbugs_shows_one_program(test_data: Path) -> None:
    python = one(test_data, "quixbugs", "quixbugs", "quixbugs-python-bitcount")
    assert set(python.source.files or {}) == {"python_programs/bitcount.py", "python_programs/node.py"}
    assert [line for line in (python.solution or "").splitlines() if line[:2] in ("- ", "+ ")] == [
        "-        n ^= n - 1",
        "+        n &= n - 1",
    ]
    assert "The number of 1-bits" in python.issue
    java = one(test_data, "quixbugs", "quixbugs", "quixbugs-java-bitcount")
    assert set(java.source.files or {}) == {f"java_programs/{n}.java" for n in ("BITCOUNT", "Node", "WeightedEdge")}
    assert java.solution and "correct_java_programs" not in java.solution
    assert set(java.test.restore) == {
        "java_testcases/junit/BITCOUNT_TEST.java",
        "java_testcases/junit/QuixFixOracleHelper.java",
    }


def test_polyglot_hides_the_reference_and_the_tests(test_data: Path) -> None:
    loaded = load(find("polyglot"), test_data / "polyglot")
    for task in loaded.tasks:
        assert task.tries == 2
        for path in task.source.files or {}:
            assert "/." not in f"/{path}" and path not in task.test.restore
    by_id = {task.id: task for task in loaded.tasks}
    ocr = by_id["polyglot-java-ocr-numbers"]
    assert touched(ocr.solution or "") == ["src/main/java/Digit.java", "src/main/java/OpticalCharacterReader.java"]
    clock = by_id["polyglot-cpp-clock"]
    assert clock.test.command.cwd == "clock" and "clock/test/catch.hpp" in clock.test.restore
    assert set(touched(clock.solution or "")) == {"clock/clock.cpp", "clock/clock.h"}
    assert "@Disabled" not in "".join(by_id["polyglot-java-change"].test.restore.values())
    assert "xtest" not in "".join(by_id["polyglot-javascript-triangle"].test.restore.values())
    assert "cases_test.go" in by_id["polyglot-go-bowling"].test.restore
    assert "common.go" in (by_id["polyglot-go-error-handling"].source.files or {})


def test_defects4j_tables_and_patches(test_data: Path) -> None:
    for version, active, deprecated in (("v2.0.1", 835, 29), ("v3.0.1", 854, 10)):
        bugs = [bug for bug in defects4j.bugs(test_data / "defects4j" / version) if isinstance(bug, defects4j.Bug)]
        assert Counter(bug.split for bug in bugs) == {"active": active, "deprecated": deprecated}
        assert len({bug.project for bug in bugs}) == 17
    loaded = load(find("defects4j"), test_data / "defects4j/v2.0.1")
    assert len(loaded.tasks) == 91 and len(loaded.problems) == 835 + 29 - 91
    assert any("Chart-2 has no patches/2.src.patch" in str(p) and ":3: " in str(p) for p in loaded.problems)
    lang = next(task for task in loaded.tasks if task.id == "defects4j-Lang-1")
    assert lang.test.fail_to_pass == ["org.apache.commons.lang3.math.NumberUtilsTest::TestLang747"]
    assert lang.source.base_commit == "687b2e62b7c6e81cd9d5c872b7fa9cc8fd3f1509" and len(lang.source.patches) == 1
    assert "-encoding ISO-8859-1" in lang.test.build[0].argv[2] and lang.test.needs == ["junit"]
    assert lang.solution and "+            char firstSigDigit = 0; // strip leading zeroes\n" in lang.solution
    assert "NumberFormatException" in lang.issue and "LANG-747" in lang.issue
    chart = next(task for task in loaded.tasks if task.family == "Chart")
    assert chart.test.needs == ["defects4j"]
    with pytest.raises(CrrlError, match=r"no usable task of defects4j.*Chart-1 has no patches/1.src.patch"):
        load(find("defects4j"), test_data / "defects4j/v3.0.1")


# Malformed -----------------------------------------------------------------------------------------------------------


def spoilt(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], str]:
    def make(row: dict[str, Any]) -> str:
        change(row)
        return json.dumps(row)

    return make


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda row: "{", "not JSON"),
        (lambda row: "[" * 100_000, "not JSON"),
        (lambda row: "[1]", "not a JSON object"),
        (spoilt(lambda row: row.pop("patch")), "patch: missing"),
        (spoilt(lambda row: row.update(patch=3)), "patch: a text, not int"),
        (spoilt(lambda row: row.update(patch="")), "patch: empty"),
        (spoilt(lambda row: row.update(patch="no diff at all")), "patch: not a unified diff"),
        (spoilt(lambda row: row.update(patch=row["patch"][: len(row["patch"]) // 2])), ": a hunk is cut short: @@ -"),
        (spoilt(lambda row: row.update(FAIL_TO_PASS="[broken")), "FAIL_TO_PASS: neither JSON nor"),
        (spoilt(lambda row: row.update(FAIL_TO_PASS=[])), "FAIL_TO_PASS: empty"),
        (spoilt(lambda row: row.update(PASS_TO_PASS=[1])), "PASS_TO_PASS: a list of texts"),
        (spoilt(lambda row: row.update(base_commit=None)), "base_commit: missing"),
    ],
)
def test_a_malformed_row_is_named_and_the_rest_loads(
    test_data: Path, tmp_path: Path, make: Callable[[dict[str, Any]], str], says: str
) -> None:
    lines = (test_data / "swe-gym/SWE-Gym.train.sample.jsonl").read_text().splitlines()
    file = tmp_path / "train.jsonl"
    file.write_text("\n".join([lines[0], "", make(json.loads(lines[1])), *lines[2:]]))
    loaded = load(find("swe-gym"), file)
    assert len(loaded.tasks) == len(lines) - 1
    (problem,) = loaded.problems
    assert problem.line == 3 and says in problem.message and str(problem).startswith(f"{file}:3: ")


def test_malformed_rows_of_tables_and_documents_are_counted_from_one(test_data: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (test_data / "swe-gym/SWE-Gym.train.sample.jsonl").read_text().splitlines()]
    rows[2]["patch"] = None
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train.parquet")
    (tmp_path / "list.json").write_text(json.dumps(rows))
    for name in ("train.parquet", "list.json"):
        loaded = load(find("swe-gym"), tmp_path / name)
        assert (
            len(loaded.tasks) == 5
            and str(loaded.problems[0]) == f"{tmp_path / name}:3: {rows[2]['instance_id']}: patch: missing"
        )
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no table")
    whole = load(find("swe-gym"), tmp_path)
    assert len(whole.tasks) == 5 and any("not readable as parquet" in str(p) for p in whole.problems)


def broken_folder(test_data: Path, tmp_path: Path, corpus: str, harm: Callable[[Path], object]) -> Loaded:
    shutil.copytree(test_data / corpus, tmp_path / corpus)
    harm(tmp_path / corpus)
    return load(find(corpus), tmp_path / corpus)


@pytest.mark.parametrize(
    ("corpus", "harm", "says"),
    [
        (
            "quixbugs",
            lambda p: (p / "correct_python_programs/gcd.py").unlink(),
            "gcd has no correct_python_programs/gcd.py",
        ),
        (
            "quixbugs",
            lambda p: (p / "java_testcases/junit/GCD_TEST.java").unlink(),
            "GCD has no java_testcases/junit/GCD_TEST",
        ),
        (
            "quixbugs",
            lambda p: shutil.copy(p / "correct_python_programs/gcd.py", p / "python_programs"),
            "is the buggy one",
        ),
        (
            "polyglot",
            lambda p: (p / "go/exercises/practice/matrix/.meta/config.json").write_text("{}"),
            "go/matrix: files: missing",
        ),
        (
            "polyglot",
            lambda p: (p / "go/exercises/practice/matrix/matrix.go").unlink(),
            "files.solution: matrix.go does not exist",
        ),
        (
            "bugsinpy",
            lambda p: (p / "projects/tqdm/bugs/1/run_test.sh").write_text("make"),
            "run_test.sh names no test",
        ),
        (
            "bugsinpy",
            lambda p: (p / "projects/tqdm/bugs/1/bug.info").write_text('python_version="3"'),
            "buggy_commit_id is missing",
        ),
        ("bugsinpy", lambda p: (p / "projects/tqdm/bugs/1/bug_patch.txt").unlink(), "bug_patch.txt: missing"),
        ("gitbug-java", lambda p: spoil_run(p / "data/bugs/iipc-jwarc.json"), "actions_runs[2]: null"),
    ],
)
def test_a_malformed_folder_is_named_and_the_rest_loads(
    test_data: Path, tmp_path: Path, corpus: str, harm: Callable[[Path], object], says: str
) -> None:
    whole = len(load(find(corpus), test_data / corpus).tasks)
    loaded = broken_folder(test_data, tmp_path, corpus, harm)
    assert len(loaded.tasks) == whole - 1
    (problem,) = loaded.problems
    assert says in str(problem) and problem.file.is_relative_to(tmp_path)


def spoil_run(file: Path) -> None:
    first, *rest = file.read_text().splitlines()
    row = json.loads(first)
    row["actions_runs"][2] = None
    file.write_text("\n".join([json.dumps(row), *rest]))


# Asking for what is not there ----------------------------------------------------------------------------------------


def test_what_is_not_there_is_said(test_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no corpus named 'swe-gim'"):
        find("swe-gim")
    quixbugs = find("quixbugs")
    with pytest.raises(CrrlError, match="not on the hub"):
        load(quixbugs)
    with pytest.raises(CrrlError, match="no such file or folder"):
        load(quixbugs, tmp_path / "none")
    with pytest.raises(CrrlError, match="no usable task"):
        load(quixbugs, tmp_path)
    with pytest.raises(UsageError, match="no split ruby"):
        load(quixbugs, test_data / "quixbugs", split="ruby")
    with pytest.raises(UsageError, match="no task quixbugs-python-gdc") as caught:
        load(quixbugs, test_data / "quixbugs", ids=["quixbugs-python-gdc"])
    assert "quixbugs-python-gcd" in caught.value.remedy


def test_every_corpus_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "corpora.md").read_text()
    for corpus in map(find, CORPORA):
        assert f"`{corpus.name}`" in text
        if corpus.from_documentation:
            row = next(line for line in text.splitlines() if line.startswith(f"| `{corpus.name}`"))
            assert "from documentation" in row
