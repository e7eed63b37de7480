"""The command fastgpt-c, which python -m fastgpt_c is, too."""

import os
import sys


def main() -> int:
    """Ctrl-C while the command itself is still being imported is Ctrl-C like any other.  NumPy's OpenBLAS has nothing
    to do here that is worth threads, which would spin beside ours at first."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from fastgpt_c.cli.interrupt import ending_at_once

        with ending_at_once():
            from fastgpt_c.cli.__main__ import main as run
        return run()
    except KeyboardInterrupt:
        return 130  # interrupt.INTERRUPTED, which may not have been imported


if __name__ == "__main__":
    sys.exit(main())
