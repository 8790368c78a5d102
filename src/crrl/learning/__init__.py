"""Learning: episodes in, weights out.

`rows.py` decides which tokens are trained; `advantages.py` compares the attempts of a group; `source.py` turns groups
into the rows of a step; `losses.py` defines the loss; `trainer.py` makes the update; `push.py` loads the weights into
the running engine and proves that they arrived; `checkpoint.py` saves them.

To add an advantage, write a function like those in `advantages.py`; to add a loss, a class like `losses.Loss`. Register
it with one line, here or in a distribution of your own (docs/plugins.md).
"""

ADVANTAGES = {
    "centred": "crrl.learning.advantages:centred",
    "normalised": "crrl.learning.advantages:normalised",
    "leave_one_out": "crrl.learning.advantages:leave_one_out",
}

# TRL's, by the divisor of their sum.
LOSSES = {
    "grpo": "crrl.learning.losses:RowMean",
    "sapo": "crrl.learning.losses:RowMean",
    "dr_grpo": "crrl.learning.losses:RowMean",
    "luspo": "crrl.learning.losses:RowMean",
    "bnpo": "crrl.learning.losses:TokenMean",
    "dapo": "crrl.learning.losses:StepMean",
    "cispo": "crrl.learning.losses:StepMean",
    "vespo": "crrl.learning.losses:StepMean",
}
