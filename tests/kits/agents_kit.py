"""A real bug (QuixBugs' gcd), and for each third-party agent a policy that repairs it, in that agent's own tools."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from crrl.engines.load import load_tokenizer
from crrl.engines.scripted import ScriptedEngine
from crrl.models import model_folder
from crrl.task import Command, Source, Task, TestPlan

FILE = "python_programs/gcd.py"
OLD, NEW = "return gcd(a % b, b)", "return gcd(b, a % b)"
TEST = "python_testcases/test_gcd.py"
SUPPORT = [TEST, "python_testcases/load_testdata.py", "json_testcases/gcd.json", "conftest.py"]


def gcd_task(test_data: Path) -> Task:
    """gcd(a, 0) is right; whatever needs a second step recurses for ever."""
    files = {path: (test_data / "quixbugs" / path).read_text() for path in [FILE, *SUPPORT]}
    cases = [json.loads(line) for line in files["json_testcases/gcd.json"].splitlines()]
    ids = [f"{TEST}::test_gcd[input_data{i}-{expected}]" for i, (_, expected) in enumerate(cases)]
    works = [case[0][1] == 0 for case in cases]
    return Task(
        id="quixbugs-gcd",
        corpus="quixbugs",
        split="train",
        language="python",
        family="gcd",
        source=Source(files=files),
        issue=f'gcd(35, 21) never returns, {FILE} recurses for ever. It\'s to return 7 (not "$7", nor `7`).',
        test=TestPlan(
            command=Command(argv=["python_testcases"]),
            parser="pytest",
            fail_to_pass=[id for id, fine in zip(ids, works, strict=True) if not fine],
            pass_to_pass=[id for id, fine in zip(ids, works, strict=True) if fine],
            restore={path: files[path] for path in SUPPORT},
        ),
    )


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


CAT, SED = f"cat {FILE}", f"sed -i 's/gcd(a % b, b)/gcd(b, a % b)/' {FILE}"
WHOLE = f"/workspace/{FILE}"
BLOCK = f"{FILE}\n```python\n<<<<<<< SEARCH\n        {OLD}\n=======\n        {NEW}\n>>>>>>> REPLACE\n```\n"
REPAIRS = {
    "nano-agent": [call("shell", cmd=CAT), call("apply_patch", search=OLD, replace=NEW, file=FILE), "Done."],
    "mini-swe-agent": [
        call("bash", command=CAT),
        call("bash", command=SED),
        call("bash", command="echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"),
    ],
    "aider": [BLOCK],
    "codex": [call("exec_command", cmd=CAT), call("exec_command", cmd=SED), "Done."],
    "opencode": [call("read", filePath=WHOLE), call("edit", filePath=WHOLE, oldString=OLD, newString=NEW), "Done."],
    "pi": [call("read", path=FILE), call("edit", path=FILE, edits=[{"oldText": OLD, "newText": NEW}]), "Done."],
    "claude-code": [
        call("Read", file_path=WHOLE),
        # Written out: left to its default, Claude Code adds `replace_all` to the call, which rewrites its history.
        call("Edit", file_path=WHOLE, old_string=OLD, new_string=NEW, replace_all=False),
        "Done.",
    ],
    "qwen-code": [
        call("read_file", file_path=WHOLE),
        call("edit", file_path=WHOLE, old_string=OLD, new_string=NEW),
        "Done.",
    ],
    "goose": [call("shell", command=CAT), call("shell", command=SED), "Done."],
    "openhands": [
        call("terminal", command=CAT),
        call("file_editor", command="str_replace", path=WHOLE, old_str=OLD, new_str=NEW),
        call("finish", message="Done."),
    ],
    "swe-agent": [call("bash", command=CAT), call("bash", command=SED), call("submit"), call("submit")],
}


# Agents that compact by themselves: of each the policy's context in tokens, how many calls with a long output it takes
# to fill that, and in which tool.
COMPACTIONS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "claude-code": (80_000, 5, {"name": "Bash", "description": "Count."}),
    "codex": (55_000, 4, {"name": "exec_command"}),
    "opencode": (55_000, 4, {"name": "bash", "description": "Count."}),
    "qwen-code": (100_000, 5, {"name": "run_shell_command", "is_background": False}),
    "goose": (40_000, 4, {"name": "shell"}),
}
SUMMARY = "gcd recurses for ever, because gcd.py swaps the arguments of its call. They are to be put right."
# Claude Code goes on with what is in `summary`; qwen-code wants a `state_snapshot`.
MARKED = f"<analysis>\nWell.\n</analysis>\n\n<summary>\n<state_snapshot>\n{SUMMARY}\n</state_snapshot>\n</summary>"


def compacting_engine(agent: str) -> ScriptedEngine:
    """Counts aloud until the context is nearly full, and then plays the repair. It sums up once, when asked to."""
    context, calls, tool = COMPACTIONS[agent]
    tokenizer = load_tokenizer(model_folder("tiny"))
    command = "cmd" if agent == "codex" else "command"
    turns = [call(**tool, **{command: f"seq {1000 + 1500 * i} {2499 + 1500 * i}"}) for i in range(calls)]
    main = iter([*turns, *REPAIRS[agent]])
    begun = asked = False

    def answer(prompt_ids: list[int]) -> list[int]:
        nonlocal begun, asked
        prompt = tokenizer.decode(prompt_ids)
        purpose = prompt[:1000] + prompt.rpartition("<|im_start|>user\n")[2][:2000]
        if begun and not asked and re.search("summar|CHECKPOINT", purpose):
            asked, text = True, MARKED
        elif "\n# Tools" not in prompt:
            text = "Repair gcd"
        else:
            begun, text = True, next(main, "Done.")
        return list(tokenizer(f"{text}<|im_end|>", add_special_tokens=False)["input_ids"])

    return ScriptedEngine(answer, context=context, step=8)


def repairing_engine(agent: str, **settings: Any) -> ScriptedEngine:
    """Plays the repair one turn further with each tool result in the prompt. A call without tools, of an agent that has
    tools, is a side call (a title): it gets a title."""
    tokenizer = load_tokenizer(model_folder("tiny"))
    turns = REPAIRS[agent]

    def answer(prompt_ids: list[int]) -> list[int]:
        prompt = tokenizer.decode(prompt_ids)
        text = turns[min(prompt.count("<tool_response>"), len(turns) - 1)]
        if turns[0].startswith("<tool_call>") and "\n# Tools" not in prompt:
            text = "Repair gcd"
        return list(tokenizer(f"{text}<|im_end|>", add_special_tokens=False)["input_ids"])

    return ScriptedEngine(answer, **{"context": 1 << 18, "step": 8, **settings})
