"""The learning rate of each update: transformers' schedules, of which no update is wasted."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_scheduler

from crrl.conf.schema import Trainer


def make_schedule(optimizer: Optimizer, trainer: Trainer) -> LambdaLR:
    """`trainer.schedule` over `max_steps` updates. transformers' begin and end with a rate of zero; here the first of w
    updates of warm-up has 1 / (w + 1) of the peak, and the last of all is not zero either."""
    word = "constant_with_warmup" if trainer.schedule == "constant" else trainer.schedule
    theirs = get_scheduler(word, optimizer, trainer.warmup_steps + 1, trainer.max_steps + 1)
    (factor,) = theirs.lr_lambdas
    return LambdaLR(optimizer, lambda update: factor(update + 1))
