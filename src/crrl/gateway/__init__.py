"""The gateway: API dialects, sessions as trees, the token ledger, budgets.

    gateway = Gateway(engine, load_renderer(tokenizer, "qwen3"), SamplingPolicy(temperature=1.0))
    await gateway.start()
    handle = gateway.open("attempt-1", Budget(tokens=2048, turns=8), seed=attempt.seed)
    ...                                # any OpenAI client: handle.base_url, handle.api_key
    record = await gateway.close("attempt-1")  # record.samples: every token, as it was sampled

The path of a request: `app.py` (whose session?) -> `serving.py` and `dialects/` (parsing) -> `session.py` (budget,
generation) -> `tree.py` (which sampled turn does this history continue?) -> `renderer/` (ids) -> the engine.
`stream.py` turns sampled tokens into the answer; they are kept as `Sample`s.
A new dialect is one module in `dialects/` and one line in its registry. `open.py` is the gateway of `crrl serve`.
"""

from crrl.gateway.api import Ask, Budget, Sample, SessionRecord
from crrl.gateway.app import Gateway, SessionHandle
from crrl.gateway.ledger import ledger_hash
from crrl.gateway.renderer import Renderer, load_renderer
from crrl.gateway.session import SamplingPolicy

__all__ = [
    "Ask",
    "Budget",
    "Gateway",
    "Renderer",
    "Sample",
    "SamplingPolicy",
    "SessionHandle",
    "SessionRecord",
    "ledger_hash",
    "load_renderer",
]
