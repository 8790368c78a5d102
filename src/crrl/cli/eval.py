"""`crrl eval`: a policy on a benchmark, or on held-out tasks, in a folder of its own."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crrl.cli.call import Call, print_json, whole_number
from crrl.cli.train import free_name
from crrl.conf.schema import Config
from crrl.errors import UsageError
from crrl.models import SHIPPED

if TYPE_CHECKING:
    from crrl.evaluation.presets import Preset
    from crrl.evaluation.sets import TaskSet
    from crrl.run.evaluate import Plan

USAGE = """
crrl eval [BENCHMARK] MODEL [key=value...] [--json] [--dry-run]
crrl eval resume=NAME
crrl eval inspect=NAME out=FOLDER"""
HELP = """
MODEL is `tiny` (the shipped policy), a Hugging Face model folder, a run's name, or one of its checkpoints
(runs/NAME/checkpoints/step-20); or predictions of others (preds.jsonl), which are graded. For a run, it is the
checkpoint that evaluation.checkpoint_rule chose, with the run's own settings.

BENCHMARK is swe-bench-verified, swe-bench-lite, swe-bench-multilingual, gitbug-java, defects4j, bugsinpy,
quixbugs-python, quixbugs-java, polyglot, quickstart; implement, spec (code from a specification); classify, sven,
secvuleval, primevul (vulnerable or not); impossible (who passes has cheated); a task file (.jsonl), a corpus, or a data
set on the hub (ORG/NAME@REVISION). Without it: the tasks that the model's own settings hold out.
crrl eval BENCHMARK --help says what it is, and how its tasks get here.

  path=FILE                        the benchmark's tasks: the file that `crrl tasks check ... out=FILE` wrote, or the
                                   corpus's own files
  ids=A,B  limit=N                 these tasks; N of them, drawn with the seed
  samples=K                        samples of each task (sampled decoding)
  evaluation.temperature=0.6       its temperature; training has its own
  agent=mini-swe-agent agent.turns=50          another agent, other budgets
  engine=remote engine.url=https://HOST/v1     MODEL is the name of a model there; the key is in OPENAI_API_KEY
  trained_on=FILE.jsonl            what MODEL was trained on, to see what it has seen (known for runs)
  evaluation.prices.hour=2.5       USD: hour (of an episode), input, output (a million tokens each)
  evaluation.tasks_per_split=400 evaluation.splits=[unseen_families] evaluation.decodings=[greedy]     held-out tasks
  run=NAME runs_dir=FOLDER         where it goes; resume=NAME goes on after Ctrl-C, a crash or kill -9
  inspect=NAME out=FOLDER          writes an evaluation as logs of Inspect, for its viewer, Scout and Docent
  seed=N                           seed of the sampling, and of generated tasks
"""


TRAINING = ("trainer", "objective", "tracker", "launch", "adapter")
"""Groups of settings that an evaluation has no use for."""
OF_ROLLOUTS = ("agent", "engine", "renderer", "model", "evaluation")
"""Groups of settings that the grading of predictions has no use for."""
OF_TRAINING = (
    *(f"evaluation.{word}" for word in ("before", "every", "validation_tasks", "checkpoint_rule")),
    "engine.share",
)
"""Settings of other groups that are about training."""
RESUMABLE = (
    *("engine.threads", "engine.device", "engine.max_batch", "engine.environment", "engine.install"),
    *("engine.memory_gb", "engine.memory_share", "engine.tensor_parallel", "engine.replicas"),
    *("rollout.concurrency", "rollout.judges"),
)
"""What a resumed evaluation may change: how fast it goes, never what it measures."""


def help_of(words: list[str]) -> str:
    """About the benchmarks among the words; "": there is none."""
    from crrl.evaluation import presets

    return "\n\n".join(presets.described(preset) for word in words if (preset := presets.find(word)) is not None)


def run(call: Call) -> int:
    for setting in call.settings:
        key = setting.partition("=")[0]
        if key.partition(".")[0] in TRAINING or key in OF_TRAINING or setting == "engine.transport=stream":
            raise UsageError(f"{key} would be ignored: crrl eval does not train.", f"Leave {key} out.")
    if (name := call.take("resume")) is not None:
        return _resume(call, name)
    if (name := call.take("inspect")) is not None:
        return _inspect(call, name)
    wanted = Wanted.of(call)
    with tempfile.TemporaryDirectory(prefix="crrl-eval-") as scratch:
        plan = planned(wanted, call.settings, Path(scratch))
    if call.dry_run:
        return _show(call, plan)
    from crrl.run.evaluate import evaluate, grade_predictions

    if wanted.predictions:
        return int(grade_predictions(plan, Path(wanted.model), json=call.json))
    return int(evaluate(plan, json=call.json) or 0)


@dataclass(frozen=True)
class Wanted:
    """The verb's arguments and its own settings."""

    model: str
    benchmark: str = ""
    path: Path | None = None
    ids: tuple[str, ...] = ()
    limit: int = 0
    trained_on: Path | None = None

    @property
    def predictions(self) -> bool:
        """MODEL is a file of predictions."""
        return Path(self.model).suffix in (".jsonl", ".json")

    @classmethod
    def of(cls, call: Call) -> Wanted:
        from crrl.evaluation import presets
        from crrl.evaluation.sets import is_set

        values = {key: v for key in ("path", "ids", "limit", "trained_on") if (v := call.take(key)) is not None}
        if (samples := call.take("samples")) is not None:
            call.settings.append(f"evaluation.samples={samples}")
        first, second = [*call.only("BENCHMARK or MODEL", "MODEL", optional=1), ""][:2]
        if not second and is_set(first):
            raise UsageError(f"Which model shall do {first}?", f"Write: crrl eval {first} tiny, or a run, or a folder.")
        if second and not is_set(first):
            raise UsageError(_no_benchmark(first), "See: crrl eval --help")
        if not second:
            first, second = "", first
        preset = presets.find(first)
        if (not first or (preset and preset.held_out)) and values:
            key = next(iter(values))
            drawn = f"{first} is drawn from the seed" if first else "the settings hold the tasks out"
            raise UsageError(
                f"{key}={values[key]} would be ignored: {drawn}.",
                "Write evaluation.tasks_per_split=N for more or fewer, or: crrl eval BENCHMARK MODEL ...",
            )
        return cls(
            model=second,
            benchmark=first,
            path=Path(values["path"]) if "path" in values else None,
            ids=tuple(id for id in values.get("ids", "").split(",") if id),
            limit=whole_number(values, "limit", 0),
            trained_on=Path(values["trained_on"]) if "trained_on" in values else None,
        )


def _no_benchmark(word: str) -> str:
    from crrl.errors import nearest
    from crrl.evaluation import presets

    return f"There is no benchmark {word}. {nearest(word, presets.names())}"


def planned(wanted: Wanted, settings: list[str], scratch: Path) -> Plan:
    """Raises UsageError or CrrlError: something cannot be evaluated so."""
    from crrl.conf.load import load_recipe
    from crrl.conf.question_checks import check_questions
    from crrl.evaluation import presets, sets
    from crrl.run.evaluate import Plan
    from crrl.run.layout import TASKS
    from crrl.tasks.asked import asked_of

    tasks: TaskSet | None = None
    preset = presets.find(wanted.benchmark)
    own = preset.words() if preset else []
    named = [key for key in (word.partition("=")[0] for word in own) if key.startswith("corpus.")]
    if wanted.benchmark and not (preset and preset.held_out):
        seed = next((int(s[5:]) for s in reversed(settings) if s.startswith("seed=") and s[5:].isdigit()), 0)
        tasks = sets.load(wanted.benchmark, path=wanted.path, ids=wanted.ids, limit=wanted.limit, seed=seed)
        if preset and preset.tasks and len(tasks.tasks) < preset.tasks:
            part = f"{len(tasks.tasks)} of its {preset.tasks} tasks are evaluated"
            tasks = replace(tasks, notes=[*tasks.notes, part])
        file = scratch / TASKS
        sets.write(file, tasks)
        own += [f"corpus.name={file}", f"corpus.held_out={len(tasks.tasks)}"]
        named += ["corpus.name", "corpus.held_out", "evaluation.splits"]
    for setting in settings:
        if setting.partition("=")[0] in named:
            raise UsageError(f"{setting} would be ignored: {wanted.benchmark} names the tasks.", "Leave it out.")
    if wanted.predictions:
        if tasks is None:
            said = f"{wanted.benchmark} is drawn from the seed, and has no predictions of others." if preset else ""
            said = said or "Predictions of what?"
            raise UsageError(said, f"Write: crrl eval BENCHMARK {wanted.model} path=TASKS.jsonl")
        if not Path(wanted.model).is_file():
            raise UsageError(f"There are no predictions at {wanted.model}.", "Write the path of preds.jsonl.")
        for key in (setting.partition("=")[0] for setting in settings):
            if key.partition(".")[0] in OF_ROLLOUTS:
                raise UsageError(f"{key} would be ignored: predictions are graded, not made.", f"Leave {key} out.")
        config, checkpoint, rule = load_recipe("quickstart", [*own, *settings]), wanted.model, ""
    elif is_remote(settings):
        config, checkpoint, rule = of_endpoint(wanted.model, [*own, *settings], preset)
    else:
        config, checkpoint, rule = resolve(wanted.model, [*own, *settings], preset)
    if tasks is not None and not wanted.predictions:
        check_questions(config.agent, {asked_of(task) for task in tasks.tasks})
    if not any(s.startswith("run=") for s in settings):
        what = tasks.name if tasks else wanted.benchmark or "held-out"
        policy = Path(wanted.model).stem if wanted.predictions else Path(wanted.model).name
        config.run = free_name(Path(config.runs_dir), f"eval-{what}-{policy}")
    elif (Path(config.runs_dir) / config.run).exists():
        raise UsageError(
            f"{Path(config.runs_dir) / config.run} exists.",
            f"Go on with it: crrl eval resume={config.run}. Otherwise choose another run=NAME.",
        )
    training, source = _trained_on(wanted)
    drawn = preset.name if preset and preset.held_out else ""
    owner = None if wanted.predictions else _run_of(wanted.model)
    first = _meta_of(owner, "policy") if owner else ""
    return Plan(config, wanted.model, checkpoint, tasks, training, source, rule, drawn, first)


def _trained_on(wanted: Wanted) -> tuple[Any, str]:
    """The tasks that the model was trained on, and where that is known from."""
    from crrl.tasks.files import load_tasks

    if wanted.trained_on is not None:
        return load_tasks(wanted.trained_on, measured=False)[0], str(wanted.trained_on)
    owner = _run_of(wanted.model)
    if owner is None:
        return None, "what the policy was trained on is not recorded; say it with trained_on=FILE.jsonl"
    from crrl.conf.load import load_saved
    from crrl.learning.curriculum import Curriculum

    config = load_saved(owner / "config.yaml", model=str(owner))
    if config.corpus.name == "generated":
        return [], f"run {owner.name} was trained on generated tasks"
    return Curriculum(config).training(), f"{config.corpus.name}, of run {owner.name}"


def _resume(call: Call, name: str) -> int:
    from crrl.cli.train import in_folder
    from crrl.conf.checks import value_at
    from crrl.conf.load import in_full, load_saved
    from crrl.run.evaluate import refuse_training_run, resume

    folder = in_folder(call, name)
    refuse_training_run(folder)
    saved = load_saved(folder / "config.yaml")
    config = load_saved(folder / "config.yaml", call.settings) if call.settings else saved
    for key in (s.partition("=")[0] for s in in_full(call.settings)):
        if key not in RESUMABLE and value_at(config, key) != value_at(saved, key):
            raise UsageError(
                f"You cannot change {key} in the middle of an evaluation.",
                f"Leave it out, or start a new one. You may change: {', '.join(RESUMABLE)}.",
            )
    call.only()
    config.run, config.runs_dir = folder.name, str(folder.parent)
    return int(resume(config, json=call.json) or 0)


def _inspect(call: Call, name: str) -> int:
    import json

    from crrl.cli.train import in_folder
    from crrl.conf.load import load_saved
    from crrl.engines.load import load_tokenizer
    from crrl.models import model_folder
    from crrl.report.inspect_export import write_inspect
    from crrl.rollout.journal import Journal
    from crrl.run.evaluate import refuse_training_run

    out = call.take("out")
    if out is None:
        raise UsageError("Where do the logs go?", f"Write: crrl eval inspect={name} out=FOLDER")
    folder = in_folder(call, name)
    refuse_training_run(folder)
    call.only()
    call.no_settings()
    if not (folder / "summary.json").is_file():
        raise UsageError(f"{folder} is not finished.", f"Write: crrl eval resume={folder.name}")
    config = load_saved(folder / "config.yaml")
    summary = json.loads((folder / "summary.json").read_text())
    with Journal.open(folder, read_only=True) as journal:
        tokenizer = load_tokenizer(model_folder(config.model.path), config.model.base)
        files = write_inspect(Path(out), journal, tokenizer, summary)
    if call.json:
        print_json({"files": [str(file) for file in files]})
    else:
        print("\n".join(map(str, files)))
    return 0


def _show(call: Call, plan: Plan) -> int:
    config, benchmark = plan.config, plan.benchmark
    if call.json:
        tasks = [task.id for task in benchmark.tasks] if benchmark else []
        print_json({"config": asdict(config), "checkpoint": plan.checkpoint, "tasks": tasks})
        return 0
    from crrl.conf.load import to_yaml

    print(to_yaml(config) + f"# evaluate {plan.checkpoint}{f' ({plan.rule})' if plan.rule else ''}")
    wanted = config.evaluation
    each = (wanted.samples if "sampled" in wanted.decodings else 0) + ("greedy" in wanted.decodings)
    if benchmark is not None:
        print(f"# on {len(benchmark.tasks)} tasks of {benchmark.name}, {len(benchmark.tasks) * each} episodes")
    elif plan.drawn:
        count = len(wanted.splits) * wanted.tasks_per_split
        print(f"# on {count} tasks of {plan.drawn} ({', '.join(wanted.splits)}), {count * each} episodes")
    print(f"# in {Path(config.runs_dir) / config.run}")
    return 0


def resolve(target: str, settings: list[str], preset: Preset | None = None) -> tuple[Config, str, str]:
    """The settings to evaluate with, the model (a shipped one or a folder), and by which rule a run's was chosen."""
    from crrl.conf.load import load_recipe, load_saved

    if target in SHIPPED:
        return load_recipe(SHIPPED[target].recipe, settings), target, ""
    path = Path(target)
    for folder in (path, Path("runs") / target):
        if (folder / "config.yaml").is_file() and not (folder / "config.json").is_file():
            config = load_saved(folder / "config.yaml", settings, model=str(last_checkpoint(folder)))
            if not any(s.startswith("run=") for s in settings):
                config.run = ""
            return (
                config,
                str(chosen_checkpoint(folder, config.evaluation.checkpoint_rule)),
                _meta_of(folder, "checkpoint_rule"),
            )
    if not any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise UsageError(
            f"{target} is neither a run nor a model folder (no config.yaml, no config.json).",
            "Write tiny, a run's name, runs/NAME/checkpoints/step-N, or a Hugging Face model folder.",
        )
    if (owner := _run_of(target)) is not None:
        return load_saved(owner / "config.yaml", settings, model=str(path)), str(path), "named in the command"
    return load_recipe(*_of_no_recipe([*settings, f"model.path={path}"], preset)), str(path), ""


def _of_no_recipe(settings: list[str], preset: Preset | None) -> tuple[str, list[str]]:
    """Recipe and settings of a model that has none of its own: those of the benchmark."""
    if preset is None:
        return "quickstart", settings
    named = any(s.partition("=")[0] in ("agent", "agent.name") for s in settings)
    return preset.recipe, [*([f"agent={preset.agent}"] if preset.agent and not named else []), *settings]


def is_remote(settings: list[str]) -> bool:
    """MODEL is a name at an endpoint, and no folder."""
    engine = [s.partition("=")[2] for s in settings if s.partition("=")[0] in ("engine", "engine.name")]
    return engine[-1:] == ["remote"]


def of_endpoint(name: str, settings: list[str], preset: Preset | None = None) -> tuple[Config, str, str]:
    """As `resolve`: a model of the endpoint. The shipped policy's renderer stands in for its own."""
    from crrl.conf.load import load_recipe

    for key in (setting.partition("=")[0] for setting in settings):
        if key in ("engine.model", "model.path"):
            raise UsageError(f"{key} would be ignored: {name} is the model.", f"Leave {key} out.")
    config = load_recipe(*_of_no_recipe([*settings, "model.path=tiny", f"engine.model={name}"], preset))
    if not config.engine.url:
        raise UsageError("Where is the endpoint?", "Write engine.url=https://HOST/v1.")
    return config, "tiny", ""


def _run_of(target: str) -> Path | None:
    """The run whose name, folder or checkpoint this is."""
    path = Path(target)
    candidates = (path, Path("runs") / target, *path.absolute().parents, *path.resolve().parents)
    return next((p for p in candidates if (p / "config.yaml").is_file() and (p / "checkpoints").is_dir()), None)


def chosen_checkpoint(run_folder: Path, rule: str) -> Path:
    """By the rule in the run's settings."""
    best = run_folder / "checkpoints" / "best"
    if rule == "best_validation" and best.is_dir():
        return best.resolve()
    return last_checkpoint(run_folder)


def _meta_of(run_folder: Path, key: str) -> str:
    """What a run wrote down when it started (`checkpoint_rule`, before training; `policy`, its first); "": nothing."""
    from crrl.rollout.journal import FILE, Journal

    if not (run_folder / FILE).is_file():
        return ""
    with Journal.open(run_folder, read_only=True) as journal:
        return str(journal.meta.get(key, ""))


def last_checkpoint(run_folder: Path) -> Path:
    found = [p for p in (run_folder / "checkpoints").glob("step-*") if p.name[5:].isdigit()]
    if not found:
        raise UsageError(
            f"{run_folder} has no checkpoint yet.",
            f"Resume it first: crrl train resume={run_folder.name}",
        )
    return max(found, key=lambda p: int(p.name[5:]))
