"""Where a run's numbers also go, besides its own folder: `name -> "module:Class"`, imports nothing.

A tracker's name is that of the package it needs (extra `[trackers]`). A distribution adds one with an entry point in
`crrl.trackers` (`report/trackers/api.py` has the interface).
"""

TRACKERS = {
    "wandb": "crrl.report.trackers.wandb:WandbTracker",
    "trackio": "crrl.report.trackers.trackio:TrackioTracker",
    "tensorboard": "crrl.report.trackers.tensorboard:TensorboardTracker",
}
