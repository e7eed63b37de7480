"""Names that people bring from llama.cpp, transformers, vLLM and OpenAI's interfaces, and what they are here.

An answer that begins with "-" is the option here, or several of which a command has one; any other is a sentence that
says what to do instead.
"""

from __future__ import annotations

_CONTEXT = "the context is the model's own n_ctx; --on-overflow says what happens when a text is longer"
_CPU = "fastgpt-c runs on the CPU alone: leave it out"
_GREEDY = "tokens are drawn unless --temperature is 0: leave it out, or give --temperature 0"
_ONE_TEXT = 'a command makes one text; for several, give "n" in the lines of fastgpt-c batch'
_STREAMS = "text appears as it is made: leave it out"
_WHOLE_TEXT = "penalties see the whole text: leave it out"
_MIROSTAT = "mirostat is turned on by --mirostat-tau: try 3 with --top-p 1"
_BEAMS_END = "beams end when no better one can come: leave it out"
_DTYPE = "a file's type is fixed when it is made: see fastgpt-c quantize, or --kv-type for the KV cache"
_TEMPLATE = "fastgpt-c chat takes the chat template from the model's file"
_CHAT = "fastgpt-c chat talks in turns"

OPTIONS: dict[str, str] = {
    # The model and the machine
    "--model-path": "--model", "--model-name": "--model", "--model-name-or-path": "--model", "--checkpoint": "--model",
    "--pretrained": "--model", "-hf": "--model", "--hf-repo": "--model", "-M": "--model",
    "-t": "--threads", "--num-threads": "--threads", "--n-threads": "--threads", "--nthreads": "--threads",
    "-tb": "--threads", "--threads-batch": "--threads",
    "-ngl": _CPU, "--gpu-layers": _CPU, "--n-gpu-layers": _CPU, "--device": _CPU, "--gpu": _CPU,
    "--device-map": _CPU, "--tensor-parallel-size": _CPU,
    "--mlock": "weights are mapped, or copied with --no-mmap: leave it out", "--mmap": "weights are mapped already",
    "-c": _CONTEXT, "--ctx-size": _CONTEXT, "--n-ctx": _CONTEXT, "--context-length": _CONTEXT,
    "--max-model-len": _CONTEXT,
    "-b": "--max-batch", "--batch-size": "--max-batch", "--max-num-seqs": "--max-batch",
    "--dtype": _DTYPE, "--torch-dtype": _DTYPE,
    "-ctk": "--kv-type", "--cache-type-k": "--kv-type", "-ctv": "--kv-type", "--cache-type-v": "--kv-type",
    "--kv-cache-dtype": "--kv-type", "--cache-type": "--kv-type",
    "--use-cache": "the KV cache is used unless --no-kv-cache is given: leave it out",
    # The text
    "-p": "--prompt", "--input": "--prompt", "--text": "--prompt", "--input-text": "--prompt",
    "-f": "--file", "--prompt-file": "--file", "--input-file": "--file",
    "-n": "--max-new-tokens", "--predict": "--max-new-tokens", "--n-predict": "--max-new-tokens",
    "--num-predict": "--max-new-tokens", "--max-tokens": "--max-new-tokens", "--n-tokens": "--max-new-tokens",
    "--max-completion-tokens": "--max-new-tokens", "--num-tokens": "--max-new-tokens",
    "--max-length": "it would count the prompt, too: give the number of new tokens with -n",
    "--min-tokens": "--min-new-tokens", "--min-length": "it would count the prompt, too: give --min-new-tokens",
    "--keep": "give --on-overflow slide, which forgets the older half of a full context",
    "-r": "--stop", "--reverse-prompt": "--stop", "--stop-strings": "--stop", "--stop-sequences": "--stop",
    "--num-return-sequences": _ONE_TEXT, "--num-samples": _ONE_TEXT, "--best-of": _ONE_TEXT,
    "--no-display-prompt": "--no-prompt", "--return-full-text": "the prompt is shown unless --no-prompt is given",
    "--stream": _STREAMS, "--streaming": _STREAMS,
    "--logprobs": "fastgpt-c score prints log-probabilities of a text",
    "--top-logprobs": "fastgpt-c score --top-k prints log-probabilities of a text",
    "--echo": "the prompt is shown unless --no-prompt is given",
    "-i": _CHAT, "--interactive": _CHAT, "-cnv": _CHAT, "--conversation": _CHAT,
    "-sys": "--system", "--system-prompt": "--system", "--chat-template": _TEMPLATE, "--jinja": _TEMPLATE,
    # Sampling
    "-s": "--seed", "--random-seed": "--seed",
    "--temp": "--temperature", "--topk": "--top-k", "--topp": "--top-p", "--minp": "--min-p",
    "--nucleus": "--top-p", "--do-sample": _GREEDY, "--greedy": "give --temperature 0",
    "--no-sample": "give --temperature 0",
    "--repeat-penalty": "--repetition-penalty", "--repetition-penalty-sustain": _WHOLE_TEXT,
    "--repeat-last-n": _WHOLE_TEXT, "--no-repeat-ngram": "--no-repeat-ngram-size",
    "--typical": "--typical-p", "--top-nsigma": "--top-n-sigma",
    "--mirostat": _MIROSTAT, "--mirostat-mode": _MIROSTAT,
    "--mirostat-ent": "--mirostat-tau", "--mirostat-lr": "--mirostat-eta",
    "--samplers": "filters apply in the order of fastgpt-c generate --help",
    "--num-beams": "--beams", "--n-beams": "--beams", "--beam-size": "--beams", "--early-stopping": _BEAMS_END,
    "--control-vector-scaled": "give --control-vector FILE=STRENGTH",
    # Constraints, guesses
    "--grammar-file": "--grammar", "--guided-grammar": "--grammar", "--guided-regex": "--regex",
    "--guided-json": "--json-schema", "-j": "--json-schema", "--response-format": "give --json-schema",
    "-md": "--draft", "--model-draft": "--draft", "--draft-model": "--draft", "--assistant-model": "--draft",
    "--speculative-model": "--draft", "--prompt-lookup-num-tokens": "--prompt-lookup",
    # Files
    "--outtype": "--type", "--ftype": "--type", "--quantize": "--type", "--quantization": "--type",
    "--outfile": "--output", "--out": "--output", "--output-file": "--output", "--output-path": "--output",
    "--log-disable": "nothing is logged: leave it out", "--color": "leave it out",
    "--no-color": "set NO_COLOR=1 in the environment",
    "--quiet": "nothing is said that was not asked for: leave it out",
    "--trust-remote-code": "no code of a checkpoint is ever run: leave it out",
}  # fmt: skip

# Values of --type and --kv-type.
VALUES: dict[str, str] = {
    "fp32": "f32", "float32": "f32", "float": "f32", "fp16": "f16", "float16": "f16", "half": "f16",
    "bfloat16": "bf16", "q8": "q8_0", "int8": "q8_0", "q4": "q4_0", "int4": "q4_0",
}  # fmt: skip
