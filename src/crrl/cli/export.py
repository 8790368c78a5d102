"""`crrl export`: a trained policy without the trainer's state, for other programs."""

from __future__ import annotations

from pathlib import Path

from crrl.cli.call import Call, print_json
from crrl.errors import UsageError

USAGE = "crrl export RUN_OR_CHECKPOINT OUT [--merged] [model.base=FOLDER] [--json] [--dry-run]"
HELP = """
RUN_OR_CHECKPOINT is a run's name (its last checkpoint), a checkpoint (runs/NAME/checkpoints/step-20, or
runs/NAME/checkpoints/best), or the folder of an adapter. OUT is a new folder.

  (without --merged)   the weights, or the LoRA adapter, with the tokenizer: what PEFT and transformers read
  --merged             an adapter merged into its base: a whole model folder, in the base's dtype
  model.base=FOLDER    where the adapter's base model is now, if it was moved
"""


def run(call: Call) -> int:
    base = call.take("model.base") or ""
    call.no_settings()
    target, out = call.only("RUN_OR_CHECKPOINT", "OUT")
    source, to = found(target), Path(out)
    if to.exists():
        raise UsageError(f"{to} exists.", "Write another folder.")
    merged = "--merged" in call.flags
    from crrl.engines.adapter import is_adapter

    if merged and not is_adapter(source):
        raise UsageError(f"{source} is a whole model: there is no adapter to merge.", "Leave --merged out.")
    if base and not merged:
        raise UsageError("model.base would be ignored: the base model is not read.", "Leave it out, or add --merged.")
    if not call.dry_run:
        from crrl.run.export import export

        export(source, to, merged=merged, base=base)
    if call.json:
        print_json({"source": str(source), "out": str(to), "merged": merged})
        return 0
    what = "the merged model" if merged else "the adapter" if is_adapter(source) else "the model"
    print(f"{source} -> {to}: {what}{' (would be written)' if call.dry_run else ''}")
    if source.name == "best":
        from crrl.learning.best import BIAS

        print(BIAS)
    if not call.dry_run:
        print(f"Next:\n  crrl eval {to}\n  crrl serve {to}")
    return 0


def found(target: str) -> Path:
    """The checkpoint of a run, or the folder itself. Raises UsageError."""
    from crrl.cli.eval import last_checkpoint

    for path in (Path(target), Path("runs") / target):
        if (path / "config.json").is_file() or (path / "adapter_config.json").is_file():
            return path
        if (path / "config.yaml").is_file():
            return last_checkpoint(path)
    raise UsageError(
        f"{target} is neither a run nor a model folder.",
        "Write a run's name, runs/NAME/checkpoints/step-N, or the folder of a model or an adapter.",
    )
