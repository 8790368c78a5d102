"""CodeRepairRL: reinforcement learning of code-repair agents inside the loop in which they will work.

Rooms, in the order in which work flows: `tasks` -> `sandbox` -> `agents` <-> `gateway` <-> `engines`,
then `rewards` -> `rollout` (episodes, groups, journal) -> `learning` (rows, trainer, weight push), and
`evaluation` and `report` beside them. `conf` holds the recipes, `cli` the command line.
"""

import logging

__version__ = "0.1.0"

# Where DeepSpeed is installed, accelerate imports it, and it says on stdout, where `--json` goes, that there is no GPU.
logging.getLogger("DeepSpeed").addFilter(lambda record: "Setting accelerator to CPU" not in record.getMessage())
