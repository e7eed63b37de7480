"""What the pages print is true: every code block runs as printed, every link leads somewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from markdown import Block, anchors, blocks, links, pages, pages_for_developers
from paths import ROOT

import fastgpt_c

BLOCKS = {page: list(blocks(page)) for page in pages()}
RUNNABLE = ("python", "sh", "c")
WITH_CODE = [page for page in BLOCKS if any(block.language in RUNNABLE for block in BLOCKS[page])]
SHOWN = ("", "json", "text", "bibtex", "{eval-rst}", "{toctree}")
TIMEOUT = 300  # seconds a block: a machine may be busy

# A block of C is a program, or statements after these declarations.
DECLARATIONS = """\
#include <fastgpt.h>
#include <stdlib.h>
int32_t print_piece(void *user, int32_t token, const char *text, size_t n_bytes);
void statements(fastgpt_model *model, fastgpt_pool *pool, fastgpt_context *ctx, fastgpt_kv_cache *kv, fastgpt_span span,
                fastgpt_tokenizer *tokenizer, fastgpt_sampler *sampler, int32_t *tokens, int32_t n_tokens,
                int32_t token, int32_t next_token, int32_t n_layer, int32_t n_embd, float *logits, float *again) {
    (void)model, (void)pool, (void)ctx, (void)kv, (void)span, (void)tokenizer, (void)sampler, (void)tokens;
    (void)n_tokens, (void)token, (void)next_token, (void)n_layer, (void)n_embd, (void)logits, (void)again;
"""


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader types: the clone's folders without the package's source, and a model of his own."""
    for part in ("bench", "csrc", "docs", "examples", "tests", "tools"):
        (tmp_path / part).symlink_to(ROOT / part)
    demo = Path(fastgpt_c.__file__).parent / "models" / "demo.gguf"
    (tmp_path / "model.gguf").symlink_to(demo)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FASTGPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"])
    return tmp_path


def run_shell(page: Path, code: str) -> None:
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code], stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT
    )
    # A batch with a line that is wrong, and such a line to be scored, end with status 1, and the page says so.
    expected = 1 if "# exit status 1" in code else 0
    assert result.returncode == expected, f"{name(page)}:\n{code}\n{result.stdout.decode()}{result.stderr.decode()}"


def compile_c(block: Block, folder: Path) -> None:
    program = "int main(" in block.code
    source = folder / (block.file or "block.c")
    source.write_text(block.code if program else DECLARATIONS + block.code + "}\n", encoding="utf-8")
    header = Path(fastgpt_c.__file__).parent / "include"
    options = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{header}"]
    result = subprocess.run(["cc", *options, str(source)], capture_output=True, text=True, timeout=TIMEOUT)
    assert result.returncode == 0, f"{block.code}\n{result.stderr}"


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("cc")), reason="needs bash and a C compiler")
@pytest.mark.parametrize("page", WITH_CODE, ids=name)
def test_code_blocks_run_as_printed(page: Path, folder: Path) -> None:
    """In order, and the Python blocks of a page in one namespace."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in BLOCKS[page]:
        if block.language not in RUNNABLE or block.not_run:
            continue
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.code, name(page), "exec"), namespace)
        elif block.language == "sh":
            run_shell(page, block.code)
        else:
            compile_c(block, folder)


def test_blocks_that_do_not_run_say_why() -> None:
    """Each has a reason, and they are few."""
    left_out = [(page, block) for page in BLOCKS for block in BLOCKS[page] if block.not_run]
    for page, block in left_out:
        print(f"{name(page)}:{block.line}: {block.not_run}")
    assert all(len(block.not_run.split()) >= 3 for _, block in left_out)
    assert len(left_out) <= 32


def test_blocks_have_a_known_language() -> None:
    """A block with a misspelled language would never run."""
    unknown = [
        (name(page), block.line, block.language)
        for page in BLOCKS
        for block in BLOCKS[page]
        if block.language not in RUNNABLE + SHOWN
    ]
    assert unknown == []


@pytest.mark.parametrize("page", [*BLOCKS, *pages_for_developers()], ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    """Files and headings of this repository are there; addresses elsewhere are well formed."""
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme:
            assert parts.scheme == "https" and "." in parts.netloc, link
            continue
        target = (page.parent / parts.path).resolve() if parts.path else page
        assert target.exists(), link
        if parts.fragment and target.suffix == ".md":
            assert parts.fragment in anchors(target), link


def test_the_python_reference_has_every_public_name() -> None:
    text = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    words = set(text.replace("`", " ").replace(".", " ").split())
    assert [public for public in fastgpt_c.__all__ if public not in words] == []


def test_comments_above_a_block_are_its_own(tmp_path: Path) -> None:
    """A comment belongs to the block right below it, whatever other comments the page has."""
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- file: a.c -->\n```c\nint a;\n```\n\n<!-- not run: needs a network -->\n```sh\nb\n```\n\n```sh\nc\n```\n"
    )
    assert [(block.file, block.not_run) for block in blocks(page)] == [("a.c", ""), ("", "needs a network"), ("", "")]


@pytest.mark.parametrize("file", ["CITATION.cff", "docs/citing.md"])
def test_the_version_to_cite_is_the_packages(file: str) -> None:
    assert fastgpt_c.__version__ in (ROOT / file).read_text(encoding="utf-8")
