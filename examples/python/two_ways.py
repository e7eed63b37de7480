"""The explicit KV cache: read a prompt once, continue it, go back, continue it another way.

python two_ways.py [MODEL]        MODEL as for fastgpt-c -m; the demo model if not given
"""

import sys

import numpy as np

import fastgpt_c


def tell(session: fastgpt_c.Session, token: int, n: int = 20) -> list[int]:
    """token and what follows it greedily, n tokens in all."""
    tokens = []
    for _ in range(n):
        tokens.append(token)
        token = int(np.argmax(session.decode(token)))
    return tokens


with fastgpt_c.load(sys.argv[1] if len(sys.argv) > 1 else None) as model, model.session() as session:
    prompt = model.encode("Once upon a time there was a")
    logits = session.prefill(prompt)
    for token in np.argsort(-logits)[:2]:
        print(model.decode(prompt + tell(session, int(token))))
        session.truncate(len(prompt))  # nothing of the prompt is computed again
