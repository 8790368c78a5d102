"""Is s = 2 as good as s = 0? The quickstart's tasks, equal episodes, three seeds: hours on two cores.

The test, stated before any of these runs: the solve rates of both after training on the same held-out tasks (three
splits of 134, sampled once, three seeds: 1,206 pairs, pooled); s = 2 is non-inferior if the 95% interval of the
difference lies above -5 points (crrl compare's margin=5).

Runs that are there are resumed, or read. Usage: python scripts/staleness.py [FOLDER]
"""

import subprocess
import sys
from pathlib import Path

from crrl.evaluation.cells import Cell, Results
from crrl.evaluation.compare import compare, markdown, non_inferior
from crrl.evaluation.results import read

SEEDS, AHEAD, MARGIN = (0, 1, 2), (0, 2), 5.0
SETTINGS = ["evaluation.tasks_per_split=134", "evaluation.decodings=[sampled]", "evaluation.before=false"]


def main(folder: Path) -> None:
    pooled = {s: Results(f"staleness {s}", {"all splits, sampled": Cell()}) for s in AHEAD}
    for seed in SEEDS:
        for s in AHEAD:
            name = f"staleness{s}-seed{seed}"
            there = (folder / name).is_dir()
            words = [f"resume={name}"] if there else ["quickstart", f"run={name}", f"seed={seed}", *SETTINGS]
            words += [] if there else [f"rollout.staleness={s}", "rollout.concurrency=64"]
            if not (folder / name / "summary.json").is_file():
                command = [sys.executable, "-m", "crrl.cli.main", "train", *words, f"runs_dir={folder}"]
                subprocess.run(command, check=True)
            (pool,) = pooled[s].cells.values()
            for cell in read(str(folder / name)).cells.values():
                for task, scores in cell.scores.items():
                    for score in scores:
                        pool.add(f"{seed}/{task}", score)
                for task, lost in cell.lost.items():
                    pool.lost[f"{seed}/{task}"] = lost
    report = compare(list(pooled.values()))
    print(markdown(report))
    print(non_inferior(report.comparisons[0], MARGIN))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
