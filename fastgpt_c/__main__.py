"""python -m fastgpt_c is the command fastgpt-c."""

import sys

from fastgpt_c.cli.__main__ import main

sys.exit(main())
