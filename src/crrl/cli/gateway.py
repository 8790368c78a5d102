"""`crrl gateway`: does an agent work with the gateway, unmodified, and does every token it received come back?"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crrl.cli.call import Call, print_json
from crrl.errors import CrrlError, UsageError, nearest

if TYPE_CHECKING:
    from crrl.conformance.check import Report

USAGE = """
crrl gateway check RECORDING.jsonl|habits [renderer=qwen3|KEY,KEY|all] [model=FOLDER] [--json]
crrl gateway record OUT.jsonl upstream=URL [command='AGENT ...'] [variant=NAME] [scenario=NAME] [port=N]
"""
HELP = """
check   replays a recording of an agent through the real gateway, with an engine that gives the recorded answers.
        Exit 0 only if the gateway answered every request as expected, every turn that came back canonically unchanged
        is in the prompt as it was sampled, what the agent wrote is there, too, and each request is of the kind that
        the recording says. `habits` in place of a file: what agents of all sorts were seen to do.
        renderer=all checks every family, in the shipped policy's vocabulary with that family's special tokens;
        model=FOLDER takes a model's own tokenizer (and renderer=auto).
record  makes such a recording: a proxy between an agent and a model server (upstream=, with or without /v1; for
        your own policy, `crrl serve`). With command= it runs the agent on this machine, unsandboxed, with
        OPENAI_BASE_URL, ANTHROPIC_BASE_URL and the like set, and ends with it. Without command= it prints the address
        for the agent and records until Ctrl-C. It records prompts, but no keys.
"""
VERBS = ("check", "record")
OF_FAMILIES = ("requests", "accepted", "matched", "re_rendered", "kinds_differ", "rows")
COLUMNS = ("requests", "accepted", "matched", "re_rendered", "changed", "replayed", "rows", "trained_tokens")


def run(call: Call) -> int:
    verb, name = call.only("check or record", "a recording's name")
    if verb not in VERBS:
        raise UsageError(f"crrl gateway does not know '{verb}'.", nearest(verb, VERBS))
    return _check(call, Path(name)) if verb == "check" else _record(call, Path(name))


def _check(call: Call, file: Path) -> int:
    wanted, model = call.take("renderer"), call.take("model")
    call.no_settings()
    keys = (wanted or ("auto" if model else "qwen3")).split(",")
    if keys == ["all"]:
        from crrl.gateway.renderer.families import FAMILIES

        keys = list(FAMILIES)
    from crrl.conformance import habits, tokens
    from crrl.conformance.check import check
    from crrl.conformance.recording import read
    from crrl.gateway.renderer import load_renderer

    if not file.is_file() and file.name != "habits":
        raise UsageError(
            f"{file}: there is no such file.", "Give a recording, or `habits`, or make one: crrl gateway record"
        )
    recorded = read(file) if file.is_file() else habits.recording()
    source = Path(model) if model else tokens.tokenizer()
    reports: dict[str, Report] = {}
    left_out: dict[str, str] = {}
    for key in keys:
        try:
            renderer = load_renderer(source, key)
        except CrrlError as error:
            if len(keys) == 1 or isinstance(error, UsageError):
                raise
            left_out[key] = error.message
            continue
        reports[renderer.key] = asyncio.run(check(recorded, renderer))
    passed = all(report.passed for report in reports.values())
    if call.json:
        _print_json(reports, left_out, passed)
    elif len(keys) == 1:
        _print(next(iter(reports.values())))
    else:
        _print_families(reports, left_out)
    return 0 if passed else 1


def _print_json(reports: dict[str, Report], left_out: dict[str, str], passed: bool) -> None:
    shown = {key: _as_json(report) for key, report in reports.items()}
    if len(shown) == 1 and not left_out:
        print_json(next(iter(shown.values())))
    else:
        print_json({"passed": passed, "renderers": shown, "left_out": left_out})


def _print_families(reports: dict[str, Report], left_out: dict[str, str]) -> None:
    lines = [("renderer", *(name.replace("_", " ") for name in OF_FAMILIES), "")]
    for key, report in reports.items():
        numbers = [str(report.total(name)) for name in OF_FAMILIES]
        lines.append((key, *numbers, "passed" if report.passed else "FAILED"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, *numbers, outcome in lines:
        middle = "  ".join(n.rjust(width) for n, width in zip(numbers, widths[1:-1], strict=True))
        print(f"{name.ljust(widths[0])}  {middle}  {outcome}")
    for why in left_out.values():
        print(f"not checked: {why}")
    for key, report in reports.items():
        _print_problems(report, f"{key}: ")
    _print_unlabelled(next(iter(reports.values())))
    print("passed" if all(report.passed for report in reports.values()) else "failed")


def _as_json(report: Report) -> dict[str, Any]:
    sums = {name: report.total(name) for name in (*COLUMNS, "answers", "labelled", "kinds_differ")}
    sessions = [vars(session) for session in report.sessions]
    return {**sums, "branches": report.branches, "passed": report.passed, "sessions": sessions}


def _print(report: Report) -> None:
    lines = [("session", *(name.replace("_", " ") for name in COLUMNS), "branches")]
    for session in report.sessions:
        numbers = [str(getattr(session, name)) for name in COLUMNS]
        lines.append((f"{session.variant}/{session.scenario}", *numbers, _counts(session.branches)))
    lines.append(("all", *(str(report.total(name)) for name in COLUMNS), _counts(report.branches)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, *numbers, branches in lines:
        middle = "  ".join(n.rjust(width) for n, width in zip(numbers, widths[1:-1], strict=True))
        print(f"{name.ljust(widths[0])}  {middle}  {branches}")
    _print_problems(report)
    _print_unlabelled(report)
    print("passed" if report.passed else "failed")


def _print_problems(report: Report, of: str = "") -> None:
    for session in report.sessions:
        where = f"{of}{session.variant}/{session.scenario}"
        for problem in session.problems:
            print(f"FAILED   {where}: {problem}")
        if session.re_rendered:
            print(f"FAILED   {where}: {session.re_rendered} tokens were re-rendered")
        if session.ended:
            print(f"note     {where} ends early: {session.ended}")


def _print_unlabelled(report: Report) -> None:
    rest = report.total("answers") - report.total("labelled")
    if rest:
        print(f"note     {rest} requests are not labelled: whether they are main, nobody can compare (docs/agents.md)")


def _counts(branches: dict[str, int]) -> str:
    return ", ".join(f"{kind} {n}" for kind, n in branches.items())


def _record(call: Call, out: Path) -> int:
    upstream, command = call.take("upstream"), call.take("command")
    variant, scenario = call.take("variant") or "agent", call.take("scenario") or "base"
    port = call.take("port") or "0"
    call.no_settings()
    if upstream is None or not upstream.startswith(("http://", "https://")):
        raise UsageError("crrl gateway record needs upstream=URL, a model server's.", "See: crrl gateway --help")
    if not port.isdecimal():
        raise UsageError(f"port={port} is not a port.", "Leave it out for any free one.")
    from crrl.conformance.record import Recorder
    from crrl.conformance.recording import Writer

    try:
        writer = Writer(out)
    except OSError as error:
        raise CrrlError(f"{out}: {error.strerror}.", "Give the name of a new file in a folder that exists.") from error
    recorder = Recorder(upstream, writer, variant, scenario)
    say: Callable[[str], None] = (lambda _: None) if call.json else (lambda text: print(text, flush=True))
    try:
        code = asyncio.run(_session(recorder, int(port), command, say))
    finally:
        writer.close()
    if call.json:
        print_json({"requests": recorder.requests, "recording": str(out), "agent_exit": code})
    else:
        print(f"{recorder.requests} requests in {out}. Check them: crrl gateway check {out}")
    return 0


async def _session(recorder: Any, port: int, command: str | None, say: Callable[[str], None]) -> int | None:
    """Record one agent's run, or until Ctrl-C. Returns the agent's exit code."""
    async with recorder.serving(port=port) as url:
        if command is None:
            say(f"Recording at {url} (for Anthropic's clients: {url.removesuffix('/v1')}). Ctrl-C ends it.")
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return None
        process = await asyncio.create_subprocess_exec("bash", "-c", command, env=_environment(url))
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def _environment(url: str) -> dict[str, str]:
    """This process's environment, with the recorder in place of the APIs."""
    addresses = {
        "OPENAI_BASE_URL": url,
        "OPENAI_API_BASE": url,
        "ANTHROPIC_BASE_URL": url.removesuffix("/v1"),
    }
    keys = {"OPENAI_API_KEY": "none", "ANTHROPIC_API_KEY": "none"}
    return {**keys, **os.environ, **addresses}
