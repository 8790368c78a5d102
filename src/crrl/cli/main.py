"""The command line: finds the verb, runs it, and turns the outcome into an exit code.

0 done, 1 failed, 2 usage, 130 interrupted. Errors that the user can fix (`CrrlError`) fit on one screen, message and
remedy; a traceback is our bug.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from crrl.cli.call import Call, print_json
from crrl.errors import CrrlError, UsageError, nearest

# verb -> (module, description). The descriptions are here so that `crrl --help` imports no verb.
VERBS: dict[str, tuple[str, str]] = {
    "train": ("train", "train a policy from a recipe, or resume an interrupted run"),
    "plan": ("plan", "how much memory a run would take, and whether it fits"),
    "eval": ("eval", "evaluate a policy on a benchmark, or on held-out tasks"),
    "compare": ("compare", "compare results on the same tasks: effect, interval, verdict"),
    "criterion": ("criterion", "is a claim met, not met, or not decidable, and what would decide it"),
    "plan-eval": ("plan_eval", "how many tasks, samples and training seeds would settle a difference"),
    "calibrate": ("calibrate", "rewards against tests: AUC, calibration error, best of k"),
    "curate": ("curate", "choose models' own good work, and others', as data for sft"),
    "sft": ("sft", "fine-tune a model on episodes or chats, or make the tiny policy"),
    "replay": ("replay", "rebuild every training row of a run from its ledger, and compare"),
    "gateway": ("gateway", "check that an agent works with the gateway, or record it"),
    "export": ("export", "write a trained policy as a model or an adapter for other programs"),
    "serve": ("serve", "serve a trained policy to your own agent"),
    "tasks": ("tasks", "list, check, split and make tasks"),
    "bench": ("bench", "measure this machine: engine, episodes, judge, next to comparable tools"),
    "clean": ("clean", "show the caches, and clear them by kind, age and size"),
    "doctor": ("doctor", "check this machine, and say how to fix what is missing"),
    "completion": ("completion", "print the completion script for bash, zsh or fish"),
}

EPILOG = """
Getting started:
  crrl doctor                                  is this machine ready?
  crrl train quickstart                        ten minutes on two cores, downloads nothing
  crrl train quickstart seed=3 trainer.max_steps=20 --dry-run
  crrl train resume=quickstart-seed0           resume after Ctrl-C or a crash
  crrl serve quickstart-seed0                  serve the trained policy to your own agent

  crrl VERB --help explains a verb."""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in words
    try:
        return _run(words)
    except CrrlError as error:
        _print_error(error, as_json)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `crrl ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except OSError as error:
        if (found := _explained(error)) is None:
            raise
        _print_error(found, as_json)
        return found.exit_code


def _run(words: list[str]) -> int:
    if words and words[0] in ("--version", "-V", "version"):
        from importlib.metadata import version

        print(f"crrl {version('coderepair-rl')}")
        return 0
    if not words or words[0] in ("--help", "-h", "help"):
        return _help(words[1:])
    verb = words[0]
    if verb not in VERBS:
        raise UsageError(f"crrl has no verb '{verb}'.", nearest(verb, VERBS) + " See: crrl --help")
    module = _module(verb)
    if words[:2] == ["completion", "words"]:
        print("\n".join(module.candidates(words[2:])))  # the shell asks; its words need no checking
        return 0
    call = Call.of(verb, words[1:])
    if call.help:
        return _verb_help(verb, module, call.arguments)
    run = module.run
    code: int = run(call)
    return code


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"crrl.cli.{VERBS[verb][0]}")


def _help(rest: list[str]) -> int:
    if rest and rest[0] in VERBS:
        return _verb_help(rest[0], _module(rest[0]), rest[1:])
    print("crrl VERB [ARG...] [key=value...] [--json] [--dry-run]\n")
    print("Reinforcement learning of code-repair agents, trained inside the loop in which they will work.\n")
    for verb, (_, says) in VERBS.items():
        print(f"  {verb:<12}{says}")
    print(EPILOG)
    return 0


def _verb_help(verb: str, module: ModuleType, words: list[str]) -> int:
    """Of the verb, or of what is named: some verbs have more to say about a word (`help_of`)."""
    if said := module.help_of(words) if hasattr(module, "help_of") else "":
        print(said)
        return 0
    print(f"{module.USAGE.strip()}\n\n{VERBS[verb][1].capitalize()}.\n\n{module.HELP.strip()}")
    return 0


def _explained(error: OSError) -> CrrlError | None:
    """Faults of the machine that can hit any verb, with a remedy."""
    import errno

    where = error.filename or "the disk"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CrrlError(
            f"No space left while writing {where}.",
            "Free some, or write runs_dir=FOLDER on another disk. To resume a training run: resume=RUN.",
        )
    if error.errno in (errno.EACCES, errno.EROFS) and error.filename:
        return CrrlError(
            f"This user may not write or read {where}.",
            "Change its permissions, or choose another folder.",
        )
    return None


def _print_error(error: CrrlError, as_json: bool) -> None:
    if as_json:
        print_json({"error": error.message, "remedy": error.remedy, "exit_code": error.exit_code})
        return
    bold, plain = ("\x1b[1;31m", "\x1b[0m") if sys.stderr.isatty() and "NO_COLOR" not in os.environ else ("", "")
    print(f"{bold}error:{plain} {error.message}", file=sys.stderr)
    if error.remedy:
        print(error.remedy, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
