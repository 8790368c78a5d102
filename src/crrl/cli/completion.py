"""`crrl completion`: verbs, recipes, keys and the values a key may have.

The shell scripts ask `crrl completion words WORD...`, which prints the candidates for the last word.
"""

from __future__ import annotations

from collections.abc import Sequence

from crrl.cli.call import FLAGS, Call
from crrl.errors import UsageError, nearest

USAGE = "crrl completion bash|zsh|fish"
HELP = """
  bash   crrl completion bash > ~/.local/share/bash-completion/completions/crrl
  zsh    crrl completion zsh > "${fpath[1]}/_crrl"
  fish   crrl completion fish > ~/.config/fish/completions/crrl.fish
"""

SCRIPTS = {
    "bash": """_crrl() {
  local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\\n'
  local words; IFS=' ' read -r -a words <<< "$line"
  [[ "$line" == *' ' ]] && words+=("")
  local last="${words[-1]}" found
  found=$(crrl completion words "${words[@]:1}" 2>/dev/null) || return
  COMPREPLY=($(compgen -W "$found" -- "$last"))
  # bash splits at `=`: the part before it is already on the line
  [[ "$last" == *=* ]] && COMPREPLY=("${COMPREPLY[@]#*=}")
  [[ "${COMPREPLY[0]}" == *= ]] && compopt -o nospace
}
complete -F _crrl crrl
""",
    "zsh": """#compdef crrl
local -a found
found=(${(f)"$(crrl completion words ${words[2,CURRENT]} 2>/dev/null)"})
compadd -S '' -- $found
""",
    "fish": """complete -c crrl -f -a '(crrl completion words (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
""",
}


def run(call: Call) -> int:
    (shell,) = call.only("SHELL")
    if shell not in SCRIPTS:
        raise UsageError(f"No completion for '{shell}'.", nearest(shell, SCRIPTS))
    print(SCRIPTS[shell], end="")
    return 0


def candidates(words: Sequence[str]) -> list[str]:
    """Candidates for the last of `words` (the command line after `crrl`; the last may be empty)."""
    from crrl.cli import bench, gateway, tasks
    from crrl.cli.main import VERBS
    from crrl.conf.checks import choices
    from crrl.conf.recipes import GROUPS, ready, recipe_names, warmstarts
    from crrl.conf.schema import Config, WarmstartConfig, keys
    from crrl.evaluation import presets
    from crrl.models import SHIPPED
    from crrl.sandbox.cache import KINDS

    last = words[-1] if words else ""
    if len(words) <= 1:
        return [v for v in VERBS if v.startswith(last)]
    verb = words[0]
    found: list[str] = list(FLAGS)
    if verb in ("train", "eval", "plan", "sft"):
        key = last.partition("=")[0]
        if "=" in last:
            values = ready(key) if key in GROUPS else choices(key)
            return [f"{key}={v}" for v in values if f"{key}={v}".startswith(last)]
        found += [f"{group}=" for group in GROUPS if verb != "sft"]
        found += [f"{k.name}=" for k in keys(WarmstartConfig if verb == "sft" else Config)]
    if verb == "serve":
        from crrl.cli.serve import candidates as settings

        found += settings()
    if len(words) == 2:
        trained = [r for r in recipe_names() if r not in ("sft", *warmstarts())]
        own = {"train": [*trained, "resume="], "plan": [*trained, "cards=", "card_gb="], "sft": warmstarts()}
        own |= {"bench": [*bench.WORDS], "gateway": [*gateway.VERBS], "tasks": [*tasks.KEYS]}
        own |= {
            "clean": [*KINDS, "older=", "max_gb=", "sandbox.state_dir="],
            "calibrate": ["tasks=", "path=", "html=", "format=markdown", "k=", "cluster=repository"],
            "completion": list(SCRIPTS),
            "curate": ["out=", "against=", "keep=", "per_task=", "similar=", "tasks=", "policy=", "samples=", "limit="],
            "doctor": ["sandbox.state_dir="],
            "eval": [*presets.names(), *SHIPPED, "resume="],
        }
        own |= {"serve": list(SHIPPED)}
        found = own.get(verb, []) + found
    return [w for w in found if w.startswith(last)]
