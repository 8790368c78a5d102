"""vLLM: the engine for real models, in a process and an environment of its own (docs/engines.md).

`engine.VllmEngine` is the run's side: it starts and watches the server, pushes weights, and proves nothing itself.
`client.VllmClient` is the sampler's side, which the rollout worker makes of `engine.VllmEngine.address`.
"""
