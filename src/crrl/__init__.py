"""CodeRepairRL: reinforcement learning of code-repair agents inside the loop in which they will work.

Rooms, in the order in which work flows: `tasks` -> `sandbox` -> `agents` <-> `gateway` <-> `engines`,
then `rewards` -> `rollout` (episodes, groups, journal) -> `learning` (rows, trainer, weight push), and
`evaluation` and `report` beside them. `conf` holds the recipes, `cli` the command line.
"""

__version__ = "0.1.0"
