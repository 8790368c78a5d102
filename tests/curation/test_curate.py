"""Curation: what is kept and why the rest is not, chats that are their tokens, and the way to `crrl sft`."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from judge_kit import FIXED, diff, make_task

from crrl.cli.main import main
from crrl.conf.load import load_recipe, to_yaml
from crrl.curation import near
from crrl.curation.api import Found, Tokens, Trajectory
from crrl.curation.chats import chat_of, plain
from crrl.curation.episodes import of_folder
from crrl.curation.layouts import of_file
from crrl.curation.select import Rules, select
from crrl.curation.write import DATA, card
from crrl.engines.load import load_tokenizer, tokenizer_hash
from crrl.errors import CrrlError
from crrl.gateway.api import Sample
from crrl.gateway.canonical import Call, Message
from crrl.gateway.renderer import Renderer, load_renderer
from crrl.learning import sft_rows
from crrl.models import model_folder
from crrl.rewards.api import Verdict
from crrl.rollout.api import Episode
from crrl.rollout.journal import TRAIN, Journal
from crrl.tasks.files import write_tasks

TOOLS = [
    {
        "type": "function",
        "function": {"name": "shell", "parameters": {"type": "object", "properties": {"cmd": {"type": "string"}}}},
    }
]
PATCH = diff({"stats.py": FIXED})


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return load_renderer(model_folder("tiny"), "qwen3")


def words(seed: int, count: int = 60) -> str:
    rng = random.Random(seed)
    return " ".join(f"w{rng.randrange(5000)}" for _ in range(count))


def told(seed: int, task: str = "", **more: Any) -> Trajectory:
    chat = [{"role": "user", "content": "Repair it."}, {"role": "assistant", "content": words(seed)}]
    values: dict[str, Any] = {"id": f"i{seed}", "task": task or f"t{seed}", "messages": chat, "solved": True, **more}
    return Trajectory(**values)


# What is kept ---------------------------------------------------------------------------------------------------------


def test_every_trajectory_is_kept_or_counted_for_one_reason() -> None:
    rows = [
        told(0),
        told(1, solved=False),
        told(2, solved=None),
        told(3, truncated=True),
        told(4, exploits=("edited_tests",)),
        told(5, exploits=("edited_tests",), solved=False),
        told(6, task="stats-1"),
    ]
    found = select(rows, Rules(), [make_task()], {})
    assert [t.id for t in found.kept] == ["i0"]
    assert found.left_out == {
        "unsolved": 1,
        "not judged": 1,
        "truncated": 1,
        "attempted an exploit": 2,
        "task of an evaluation": 1,
    }
    assert found.leaks == {"stats-1": ("stats-1", "id")}
    assert len(select(rows, Rules("judged"), [], {}).kept) == 4
    assert len(select(rows, Rules("all"), [], {}).kept) == 5, "nobody keeps an exploit"


def test_a_task_under_another_name_is_found_by_its_fix_and_by_its_solvers() -> None:
    other = make_task()
    renamed = told(1, task="mine-7", patch=PATCH)
    assert select([renamed], Rules(), [other], {}).leaks == {"mine-7": ("stats-1", "patch")}
    unsolved = told(1, task="mine-7", patch=PATCH, solved=False)
    assert not select([unsolved], Rules("judged"), [other], {}).leaks, "a patch that fails is no sign of the task"


def test_of_duplicates_the_best_stays_whatever_the_order() -> None:
    shaky = told(1, id="shaky", faults=3)
    fine = told(1, id="fine")
    words_of = words(1).split()
    close = told(
        1, id="close", messages=[*fine.messages[:1], {"role": "assistant", "content": " ".join(["x", *words_of])}]
    )
    for rows in ([shaky, fine, close], [close, shaky, fine]):
        found = select(rows, Rules(), [], {})
        assert [t.id for t in found.kept] == ["fine"]
        assert found.left_out == {"duplicate": 1, "near-duplicate": 1}
    assert len(select([fine, close], Rules(similar=1.0), [], {}).kept) == 2


def test_of_a_task_those_that_differ_most_are_kept() -> None:
    def mixed(name: str, share: int) -> Trajectory:
        text = " ".join([*words(0, 100).split()[:share], *words(ord(name), 100 - share).split()])
        return told(
            0, task="t", id=name, messages=[{"role": "user", "content": "x"}, {"role": "assistant", "content": text}]
        )

    first, like, unlike = mixed("a", 100), mixed("b", 80), mixed("c", 5)
    found = select([like, unlike, first], Rules(per_task=2), [], {})
    assert {t.id for t in found.kept} == {"a", "c"} and found.left_out == {"more than are kept of a task": 1}
    assert len(select([first, like, unlike], Rules(per_task=0), [], {}).kept) == 3


def test_near_is_jaccard_and_minhash_misses_none_of_it() -> None:
    one, other = near.shingles("a b c d e f"), near.shingles("a b c d e g")
    assert near.jaccard(one, other) == pytest.approx(1 / 3)
    assert near.jaccard(near.shingles("x = 1"), near.shingles("x = 2")) == 0.0, "a short text is one shingle"
    texts = [near.shingles(words(i)) for i in range(200)]
    changed = [near.shingles(words(i).rsplit(" ", 1)[0]) for i in range(200)]
    assert near.first_of_each([*texts, *changed], 0.8) == [*range(200), *range(200)]
    assert near.first_of_each([*texts, *changed], 0.99) == list(range(400))


# Chats that are their tokens ------------------------------------------------------------------------------------------


def rows_of_chat(renderer: Renderer, messages: list[Message], tools: Any) -> tuple[list[int], list[int]]:
    row = sft_rows.of_conversation(messages, tools, renderer)
    return row.ids, row.trained


@pytest.mark.parametrize("arguments", ['{"cmd": "ls"}', '{"cmd":"ls"}', '{"cmd": "echo \\"ä\\"", "n": 1.50}'])
def test_tokens_are_read_back_as_the_chat_that_they_are(renderer: Renderer, arguments: str) -> None:
    messages = [
        Message("system", "Be brief."),
        Message("user", "Repair maths.py.\nNow."),
        Message("assistant", "Looking.", [Call("shell", arguments), Call("shell", '{"cmd": "pwd"}')]),
        Message("tool", "maths.py\n<b>"),
        Message("tool", "/work"),
        Message("assistant", "Done."),
    ]
    ids, trained = rows_of_chat(renderer, messages, TOOLS)
    chat = chat_of(ids, trained, renderer)
    assert chat is not None
    found, tools = chat
    assert [m["role"] for m in found] == ["system", "user", "assistant", "tool", "tool", "assistant"]
    ids_of_calls = [call["id"] for call in found[2]["tool_calls"]]
    assert [found[3]["tool_call_id"], found[4]["tool_call_id"]] == ids_of_calls
    assert tools == TOOLS and found[0]["content"] == "Be brief."
    again = sft_rows.of_conversation(
        *sft_rows._read(json.dumps({"messages": found, "tools": tools}).encode()), renderer
    )
    assert again.ids == ids and again.trained == trained, "sft trains the very tokens"


def test_tokens_that_are_no_chat_have_none(renderer: Renderer) -> None:
    ids, trained = rows_of_chat(renderer, [Message("user", "x"), Message("assistant", "y")], None)
    assert chat_of([*ids[:1], 5, *ids[1:]], [0, *trained], renderer) is None
    assert chat_of(ids[1:], trained[1:], renderer) is None
    prompt = renderer.prompt([Message("user", "x")], None)
    spelt = [renderer.tokenizer.encode(letter)[0] for letter in "return value"]  # the text, in other tokens
    whole = renderer.assistant(Message("assistant", "return value"))
    assert spelt != whole[:-1] and renderer.tokenizer.decode(spelt) == renderer.tokenizer.decode(whole[:-1])
    row = [*prompt, *spelt, whole[-1]]
    assert chat_of(row, [0] * len(prompt) + [1] * (len(spelt) + 1), renderer) is None
    assert chat_of([7, 8, 9], [0, 0, 1], renderer) is None


# Runs -----------------------------------------------------------------------------------------------------------------


def sample(renderer: Renderer, name: str, seed: int) -> Sample:
    prompt = renderer.prompt([Message("user", f"Repair {words(seed, 6)}.")], TOOLS)
    call = Message("assistant", "", [Call("shell", json.dumps({"cmd": f"sed -i {words(seed, 20)}"}))])
    ids = renderer.assistant(call)
    return Sample(name, name, None, prompt, ids, [-0.5] * len(ids), [0] * len(ids))


def run_folder(folder: Path, renderer: Renderer, count: int = 6, evaluation: bool = False, phase: str = TRAIN) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        to_yaml(load_recipe("quickstart", [f"run={folder.name}", "renderer.key=qwen3"]))
    )
    with Journal.create(folder, {"evaluation": {"policy": "tiny"}} if evaluation else {}) as journal:
        for i in range(count):
            outcome = "lost" if i == 1 else "scored"
            verdict = None if i == 1 else Verdict(1.0, {"tests": 1.0}, solved=i != 2)
            samples = [sample(renderer, f"s{i}", i)]
            journal.add_episode(phase, Episode(f"e{i}", f"g{i}", f"t{i}", 0, 0, outcome, samples, PATCH, verdict))
        if count:
            journal.add_episode("before", Episode("b", "b", "held", 0, 0, "scored", samples, PATCH, verdict))
    return folder


def test_a_run_gives_its_training_episodes_and_no_others(tmp_path: Path, renderer: Renderer) -> None:
    found = Found()
    of_folder(run_folder(tmp_path / "a", renderer), TRAIN, {}, found)
    assert [t.task for t in found.trajectories] == ["t0", "t2", "t3", "t4", "t5"] and found.left_out == {"lost": 1}
    first = found.trajectories[0]
    assert first.tools == TOOLS and first.messages[1]["tool_calls"] and first.tokens
    assert first.tokens.tokenizer == tokenizer_hash(load_tokenizer(model_folder("tiny")))
    assert str(tmp_path) not in json.dumps([first.where, first.id, first.about]), "a data set names no folder of ours"


def test_of_a_remote_endpoint_the_chat_is_kept_and_no_tokens(tmp_path: Path, renderer: Renderer) -> None:
    folder = run_folder(tmp_path / "a", renderer, count=0)
    spoken = sample(renderer, "s", 1)
    spoken = replace(spoken, versions=[-1] * len(spoken.ids), logprobs=[float("nan")] * len(spoken.ids))
    verdict = Verdict(1.0, {"tests": 1.0}, solved=True)
    with Journal.open(folder) as journal:
        journal.add_episode(TRAIN, Episode("e", "g", "t", 0, 0, "scored", [spoken], PATCH, verdict))
    found = Found()
    of_folder(folder, TRAIN, {}, found)
    (trajectory,) = found.trajectories
    assert trajectory.tokens is None and trajectory.messages[1]["tool_calls"] and trajectory.tools == TOOLS


def test_held_out_tasks_are_refused(tmp_path: Path, renderer: Renderer, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_folder(tmp_path / "held", renderer, evaluation=True, phase="eval")
    assert main(["curate", str(folder), f"out={tmp_path / 'set'}"]) == 2
    assert "for measuring, not for training" in capsys.readouterr().err
    write_tasks(folder / "tasks.jsonl", [make_task()])  # named in the command
    assert main(["curate", str(folder), f"out={tmp_path / 'set'}"]) == 0


@pytest.mark.timeout(300)  # it trains, also on a machine that is busy
def test_from_a_run_to_a_model(tmp_path: Path, renderer: Renderer, capsys: pytest.CaptureFixture[str]) -> None:
    """curate, its card, sft on the tokens as they were sampled, sft on the chats: the same rows."""
    run_folder(tmp_path / "a", renderer)
    out = tmp_path / "set"
    write_tasks(tmp_path / "eval.jsonl", [make_task()])
    words_of = ["curate", str(tmp_path / "a"), f"out={out}", f"against={tmp_path / 'eval.jsonl'}"]
    assert main([*words_of, "--json"]) == 1, "each patch is the evaluation's fix"
    assert "4 task of an evaluation" in json.loads(capsys.readouterr().out)["error"]
    assert main([*words_of[:-1], "--dry-run"]) == 0 and not out.exists()
    assert "would be written" in capsys.readouterr().out
    assert main([*words_of[:-1], "--json"]) == 0
    told_of = json.loads(capsys.readouterr().out)
    assert told_of["trajectories"] == 4 and told_of["left_out"] == {"unsolved": 1, "lost": 1}
    text = (out / "README.md").read_text()
    assert "**not checked**" in text and "| unsolved | 1 |" in text and str(tmp_path) not in text
    tokens = tokenizer_hash(load_tokenizer(model_folder("tiny")))
    exact = sft_rows.read([out / DATA], renderer, "solved", 4096, {}, tokens)
    chats = sft_rows.read([out / DATA], renderer, "solved", 4096, {}, "another")
    of_file_ = sft_rows.read([out / "chats.jsonl"], renderer, "solved", 4096, {})
    assert exact.rows == chats.rows == of_file_.rows and len(exact.rows) == 4
    settings = ["model.path=tiny", "tokens_per_pack=512", "packs_per_step=1", "epochs=1", "warmup_steps=0", "threads=1"]
    assert main(["sft", str(out / DATA), f"out={tmp_path / 'model'}", *settings]) == 0
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_what_was_written_is_read_again(tmp_path: Path, renderer: Renderer) -> None:
    run_folder(tmp_path / "a", renderer)
    assert main(["curate", str(tmp_path / "a"), f"out={tmp_path / 'one'}", "keep=judged"]) == 0
    assert main(["curate", str(tmp_path / "one" / DATA), f"out={tmp_path / 'two'}", "keep=judged"]) == 0
    one, two = (pq.read_table(tmp_path / name / DATA).drop(["where"]).to_pylist() for name in ("one", "two"))
    assert [{**row, "scores": None} for row in one] == two


# Others' files --------------------------------------------------------------------------------------------------------

CHAT = [
    {"role": "system", "content": "You repair."},
    {"role": "user", "content": [{"type": "text", "text": "Issue."}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "bash", "arguments": '{"cmd": "ls"}'}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "a.py", "name": "bash"},
    {"role": "assistant", "content": "Done."},
]
FLAT = [
    {**message, "content": message["content"] if not isinstance(message["content"], list) else "Issue."}
    for message in CHAT
]
NEBIUS = [
    {"role": "system", "text": None, "system_prompt": "SETTING", "mask": False, "cutoff_date": "01.01.2023"},
    {"role": "user", "text": "Issue.", "system_prompt": None, "mask": False, "cutoff_date": None},
    {"role": "ai", "text": "DISCUSSION\n```\nls\n```", "system_prompt": None, "mask": False, "cutoff_date": None},
]
LAYOUTS: dict[str, tuple[dict[str, Any], bool | None]] = {
    "swe-smith": (
        {
            "messages": json.dumps(CHAT),
            "instance_id": "a__b.1",
            "resolved": True,
            "model": "m",
            "traj_id": "x",
            "patch": PATCH,
        },
        True,
    ),
    "swe-gym": (
        {"messages": CHAT, "instance_id": "a__b-1", "resolved": False, "run_id": "x", "git_patch": PATCH},
        False,
    ),
    "coderforge": (
        {"messages": json.dumps(CHAT), "tools": json.dumps(TOOLS), "trajectory_id": "x", "reward": 1.0},
        True,
    ),
    "swe-rebench": (
        {
            "trajectory": CHAT,
            "tools": TOOLS,
            "trajectory_id": "x",
            "instance_id": "a",
            "resolved": 1,
            "model_patch": PATCH,
        },
        True,
    ),
    "nebius": (
        {"trajectory": NEBIUS, "instance_id": "a__b-1", "target": False, "model_name": "m", "generated_patch": PATCH},
        False,
    ),
    "plain": ({"messages": CHAT}, None),
}


@pytest.mark.parametrize("ext", ["jsonl", "parquet"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_layouts(tmp_path: Path, renderer: Renderer, layout: str, ext: str) -> None:
    row, solved = LAYOUTS[layout]
    file = tmp_path / f"data.{ext}"
    if ext == "jsonl":
        file.write_text(json.dumps(row) + "\n")
    else:
        flat = {key: FLAT if value is CHAT else value for key, value in row.items()}
        pq.write_table(pa.Table.from_pylist([flat]), file)
    found = Found()
    of_file(file, found)
    assert not found.faults
    (trajectory,) = found.trajectories
    assert trajectory.solved is solved and trajectory.messages[-1]["role"] == "assistant"
    assert trajectory.patch == (PATCH if any("patch" in key for key in row) else "")
    assert trajectory.task == row.get("instance_id", "")
    body = {"messages": trajectory.messages, **({"tools": trajectory.tools} if trajectory.tools else {})}
    assert sft_rows.of_conversation(*sft_rows._read(json.dumps(body).encode()), renderer).trained


def test_bad_rows_are_named_and_the_rest_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad: list[bytes] = [
        b"{",
        b"[]",
        b"\xff\xfe\x00",
        json.dumps({"prompt": "x"}).encode(),
        json.dumps({"messages": "[not json"}).encode(),
        json.dumps({"messages": ["x"]}).encode(),
        json.dumps({"messages": CHAT[:2]}).encode(),
        json.dumps({"messages": CHAT[2:]}).encode(),
        json.dumps({"messages": [{"role": "robot", "content": "x"}, *CHAT]}).encode(),
        json.dumps({"messages": CHAT, "resolved": "perhaps"}).encode(),
        json.dumps({"messages": CHAT, "tools": 7}).encode(),
        json.dumps({"messages": CHAT, "ids": [1, 2], "trained": [1], "tokenizer": "x"}).encode(),
        json.dumps({"trajectory": [{"role": "user"}]}).encode(),
    ]
    good = json.dumps(
        {"messages": [*CHAT, {"role": "assistant", "content": "x" * 2_000_000}], "resolved": True}
    ).encode()
    (tmp_path / "chats.jsonl").write_bytes(b"\n".join([*bad, b"", good]) + b"\n")
    found = Found()
    of_file(tmp_path / "chats.jsonl", found)
    assert len(found.trajectories) == 1 and found.left_out == {"unreadable rows": len(bad)}
    assert [fault.split(":")[1] for fault in found.faults] == ["1", "2", "3", "4", "5"]
    assert main(["curate", str(tmp_path / "chats.jsonl"), f"out={tmp_path / 'set'}"]) == 0
    assert f"{len(bad)} unreadable rows" in capsys.readouterr().out


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(CrrlError, match=r"a\.parquet"):
        of_file(tmp_path / "a.parquet", Found())
    with pytest.raises(CrrlError, match=r"a\.parquet cannot be read"):
        sft_rows.read([tmp_path / "a.parquet"], load_renderer(model_folder("tiny"), "qwen3"), "solved", 64, {})


@pytest.mark.parametrize(
    ("words_of", "says"),
    [
        (["x.jsonl"], "out=FOLDER"),
        (["out=s"], "needs DATA"),
        (["nowhere", "out=s"], "neither a run"),
        (["x.jsonl", "out=s", "keep=best"], "keep=best"),
        (["x.jsonl", "out=s", "similar=2"], "similar=2"),
        (["x.jsonl", "out=s", "per_task=few"], "per_task=few"),
        (["x.jsonl", "out=s", "samples=4"], "samples="),
        (["x.jsonl", "out=s", "seed=4"], "takes no settings"),
        (["x.jsonl", "out=s", "against=nothing"], "nothing is no benchmark"),
        (["tasks=generated", "out=s"], "policy= is missing"),
        (["tasks=generated", "policy=preds.jsonl", "out=s"], "nothing can be sampled"),
    ],
)
def test_wrong_words(words_of: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["curate", *words_of]) == 2
    shown = capsys.readouterr().err
    assert says in shown


def test_text_from_data_stays_text_in_the_card() -> None:
    hostile = told(1, about={"model": "`\n# Heading\n| x |"}, tokens=Tokens([1], [1], "t"))
    text = card("set", select([hostile], Rules(), [], {}), Rules(), ["a`b"], [])
    assert "\n# Heading" not in text and "`a'b`" in text
    assert plain([Message("user", "x")]) == [{"role": "user", "content": "x"}]
