"""Install vLLM where engine=vllm looks for it: `python scripts/vllm.py [FOLDER]`. Otherwise STATE_DIR/engines/vllm
(default STATE_DIR: that of `sandbox.state_dir`). One that is there, of the same version, is left alone.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from crrl.engines.vllm.install import python_of
from crrl.errors import CrrlError
from crrl.sandbox import default_state_dir


def main() -> int:
    default = Path(os.environ.get("STATE_DIR") or default_state_dir()) / "engines" / "vllm"
    folder = Path(sys.argv[1]) if sys.argv[1:] else default
    try:
        print(python_of(folder, cuda=torch.cuda.is_available(), install=True, note=print))
    except CrrlError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
