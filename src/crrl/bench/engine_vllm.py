"""Runs in vLLM's own environment (imports nothing of ours): folder requests tokens prefix -> tokens per CPU-second."""

import os
import sys

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # one process, so that its CPU time is all of it
os.environ.setdefault("OMP_NUM_THREADS", "1")


def main() -> None:
    import time

    from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

    folder, (requests, tokens, prefix) = sys.argv[1], map(int, sys.argv[2:])
    llm = LLM(folder, dtype="float32", skip_tokenizer_init=True, enable_prefix_caching=True, max_model_len=2048)
    shared = [(i * 7919) % 4096 for i in range(prefix)]
    llm.generate([{"prompt_token_ids": [*shared, 0]}], SamplingParams(max_tokens=1, detokenize=False))
    params = SamplingParams(max_tokens=tokens, ignore_eos=True, logprobs=0, detokenize=False)
    start = time.process_time()
    llm.generate([{"prompt_token_ids": [*shared, i]} for i in range(requests)], params)
    print(requests * tokens / (time.process_time() - start))


if __name__ == "__main__":
    main()
