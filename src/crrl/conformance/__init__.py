"""Does an agent work with the gateway? Recordings of real agents (`record`, `recording`), and the check that replays
one against the gateway (`check`) with answers of its own (`replies`)."""
