"""Rollouts: attempts in, finished episodes out, and the journal that keeps them.

`client.RolloutClient` (in the trainer's process) hands attempts to `worker` (a process of its own: gateway, agents,
boxes, judge), where `scheduler` runs many at once and `episode` runs one. `journal` is written by the trainer's side
alone.
"""
