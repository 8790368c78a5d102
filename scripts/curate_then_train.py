"""Does curating a policy's own work first help? curate -> sft -> train against train alone, at equal episodes.

The test, stated before any of these runs: both arms sample 3,840 episodes (quickstart's 60 steps of 64; or 960 for
curation and 45 steps), three seeds each, and are evaluated on the same held-out tasks (three splits of 134, sampled
once: 1,206 pairs, pooled). The verdict is crrl compare's.

Runs and models that are there are resumed, or read. About an hour on two quiet cores.
Usage: python scripts/curate_then_train.py [FOLDER]
"""

import subprocess
import sys
from pathlib import Path

from crrl.evaluation.cells import Cell, Results
from crrl.evaluation.compare import compare, markdown
from crrl.evaluation.results import read

SEEDS, STEPS, CURATED = (0, 1, 2), 60, 15  # CURATED: steps' worth of episodes
PER_STEP, SAMPLES = 64, 8
SETTINGS = ["evaluation.tasks_per_split=134", "evaluation.decodings=[sampled]", "evaluation.before=false"]


def crrl(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "crrl.cli.main", *words], check=True)


def train(folder: Path, name: str, seed: int, *words: str) -> Results:
    """A run to its end; its last evaluation."""
    if not (folder / name / "summary.json").is_file():
        new = ["quickstart", f"run={name}", f"seed={seed}", *SETTINGS, *words]
        crrl("train", *([f"resume={name}"] if (folder / name).is_dir() else new), f"runs_dir={folder}")
    return read(str(folder / name))


def curated(folder: Path, seed: int) -> Path:
    """A model that was fine-tuned on its own solved episodes, at tasks that training does not draw."""
    data, model = folder / f"data-seed{seed}", folder / f"sft-seed{seed}"
    if not data.is_dir():
        tasks = CURATED * PER_STEP // SAMPLES
        made = ["tasks=generated", f"limit={tasks}", "policy=tiny", f"samples={SAMPLES}", f"seed={1000 + seed}"]
        crrl("curate", *made, f"out={data}")
    if not model.is_dir():
        rate = ["epochs=2", "learning_rate=1e-4", "tokens_per_pack=2048", "packs_per_step=1"]
        crrl("sft", str(data / "train.parquet"), f"out={model}", "model.path=tiny", f"seed={seed}", *rate)
    return model


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    arms = {name: Results(name, {"all splits, sampled": Cell()}) for name in ("train", "curate, sft, train")}
    for seed in SEEDS:
        alone = train(folder, f"alone-seed{seed}", seed, f"trainer.max_steps={STEPS}")
        words = [f"trainer.max_steps={STEPS - CURATED}", f"model.path={curated(folder, seed)}"]
        both = train(folder, f"curated-seed{seed}", seed, *words)
        for arm, results in zip(arms.values(), (alone, both), strict=True):
            (pool,) = arm.cells.values()
            for cell in results.cells.values():
                for task, scores in cell.scores.items():
                    for score in scores:
                        pool.add(f"{seed}/{task}", score)
                for task, lost in cell.lost.items():
                    pool.lost[f"{seed}/{task}"] = lost
    print(markdown(compare(list(arms.values()))))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
