"""fastgpt-c info: what is in a model file, and what runs it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from fastgpt_c.cli import common
from fastgpt_c.errors import ModelFileError, UsageError, missing_extra

if TYPE_CHECKING:
    from fastgpt_c.model import Model

FINGERPRINT = "fastgpt.fingerprint.sha256"


def add_parser(subparsers: common.Subparsers) -> None:
    parser = subparsers.add_parser(
        "info",
        help="show what is in a model",
        description="Shows a model's sizes, types and vocabulary, and the BLAS and kernels that run it; or, with "
        "--system, this machine as the library sees it.",
    )
    parser.add_argument("model", nargs="?", metavar="FILE", help=common.MODEL_HELP)
    parser.add_argument("--system", action="store_true", help="show the machine instead: kernels, CPU, usable cores")
    parser.add_argument(
        "--measure", action="store_true", help="with --system: also measure read bandwidth and arithmetic"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--check",
        action="store_true",
        help="compute the fingerprint of sizes and tensors again, and fail if it is not the file's; needs "
        "fastgpt-c[convert]",
    )
    parser.set_defaults(run=run, threads=None, no_mmap=False)


def run(args: argparse.Namespace) -> int:
    if args.system:
        facts = _system(args)
    elif args.measure:
        raise UsageError("--measure measures the machine: give --system with it")
    else:
        with common.load_model(args) as model:
            facts = _facts(model)
            if args.check:
                _check(model)
                facts["fingerprint_checked"] = True
    if args.json:
        common.print_json(facts)
    else:
        width = max(map(len, facts))
        print("\n".join(f"{name:{width}}  {_shown(value)}" for name, value in facts.items()))
    return 0


def _system(args: argparse.Namespace) -> dict[str, Any]:
    from fastgpt_c.profiling import machine

    if args.model is not None:
        raise UsageError("--system shows the machine, not a model: give one of them")
    facts = machine.facts()
    return facts | vars(machine.roofline()) if args.measure else facts


def _facts(model: Model) -> dict[str, Any]:
    import fastgpt_c
    from fastgpt_c.native.lib import ffi, lib

    sizes = ("n_params", "n_layer", "n_head", "n_embd", "n_ff", "n_ctx", "n_vocab")
    return {
        "name": model.name,
        **_card(model),
        "file": str(model.path),
        "file_bytes": model.path.stat().st_size,
        "type": model.type,
        "activation": model.activation,
        **{name: getattr(model, name) for name in sizes},
        "kv_cache_bytes": 2 * model.n_layer * model.n_ctx * model.n_embd * ffi.sizeof("float"),
        "tokenizer": _text(model, "fastgpt.tokenizer") or ("byte-level BPE" if model.has_tokenizer else None),
        "eos_token": model.eos_token,
        **({"eos_tokens": list(model.eos_tokens)} if len(model.eos_tokens) > 1 else {}),
        "fingerprint": _text(model, FINGERPRINT),
        "version": fastgpt_c.__version__,
        "blas": ffi.string(lib.fastgpt_blas_name()).decode(),
        "kernels": ffi.string(lib.fastgpt_kernels_name()).decode(),
        "usable_cores": lib.fastgpt_usable_cores(),
    }


def _card(model: Model) -> dict[str, str]:
    """What the file says of its origin; only what it says."""
    keys = {
        "license": "general.license",
        "license_name": "general.license.name",
        "license_link": "general.license.link",
        "source": "general.source.url",
    }
    return {name: text for name, key in keys.items() if (text := _text(model, key))}


def _text(model: Model, key: str) -> str | None:
    value = model.metadata(key)
    return None if value is None else value.decode("utf-8", "replace")


def _check(model: Model) -> None:
    stated = _text(model, FINGERPRINT)
    if stated is None:
        raise ModelFileError(
            f"{model.path}: has no fingerprint to check: fastgpt-c did not make it, or before it wrote fingerprints, "
            "as the demo model; convert and quantize write one"
        )
    try:
        from fastgpt_c.convert.fingerprint import fingerprint_of
    except ImportError as error:
        raise missing_extra("convert", "Checking a file") from error
    found = fingerprint_of(model.path)
    if found != stated:
        raise ModelFileError(
            f"{model.path}: has the fingerprint {found}, but says {stated}: its weights or sizes were changed after it "
            "was converted"
        )


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(value) or "none"
    if isinstance(value, float):
        return f"{value / 1e9:,.1f} x 10^9"
    return f"{value:,}" if isinstance(value, int) else common.one_line(str(value))
