"""Damaged input, and how much of it."""

from __future__ import annotations

import os
import random

N_MUTANTS = int(os.environ.get("FASTGPT_TEST_MUTANTS", "150"))


def mutate_bytes(data: bytes, random_: random.Random) -> bytes:
    """Some bytes flipped, cut, doubled or written over others."""
    changed = bytearray(data)
    for _ in range(random_.randint(1, 3)):
        at, n = random_.randrange(len(changed) + 1), random_.randint(1, 40)
        part = changed[at : at + n]
        kind = random_.randrange(5)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << random_.randrange(8)
        elif kind == 1:
            changed[at : at + n] = b""
        elif kind == 2:
            changed[at:at] = part
        elif kind == 3:
            to = random_.randrange(len(changed) + 1)
            changed[to : to + len(part)] = part
        else:
            changed = changed[:at]
    return bytes(changed)
