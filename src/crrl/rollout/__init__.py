"""Rollouts: attempts in, finished episodes out, and the journal that keeps them.

`client.RolloutClient`, in the trainer's process, hands attempts to `worker`, a second process with the gateway, the
agents, their boxes and the judge. There `scheduler` runs many attempts at once, and `episode` runs one. Only the
trainer's side writes the `journal`.
"""
