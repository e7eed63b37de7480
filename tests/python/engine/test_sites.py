"""Every site shows what a float64 run has there; edits and hooks change it as they would change that run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import edited_reference
import numpy as np
import pytest
import reference
from models import write_random_gguf

import fastgpt_c
from fastgpt_c import SITES, Edit, Span, UsageError
from fastgpt_c.engine.sites import Site

N_EDITED_RUNS = int(os.environ.get("FASTGPT_TEST_EDITS", "150"))
Arrays = dict[str, np.ndarray]


class Small:
    """A random model of an odd shape, and its weights in float64."""

    def __init__(self, path: Path, seed: int) -> None:
        n_head, width = (3, 5) if seed % 2 else (2, 8)
        shape = {"n_layer": 3, "n_head": n_head, "n_embd": n_head * width, "n_ctx": 40, "n_vocab": 61}
        self.model = fastgpt_c.load(write_random_gguf(path, seed=seed, **shape))
        self.reference = reference.load_gguf(path)
        self.tokens = np.random.default_rng(seed).integers(61, size=11)

    def width(self, site: Site, by_head: bool) -> int:
        """Numbers of one row of the site's values."""
        n_embd, n_head = self.model.n_embd, self.model.n_head
        return {"embd": n_embd, "heads": n_embd // n_head if by_head else n_embd, "ff": 4 * n_embd, "keys": 11}[
            site.kind
        ]


@pytest.fixture(scope="module", params=[0, 1])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Small:
    return Small(tmp_path_factory.mktemp("sites") / "small.gguf", request.param)


def look(small: Small, tokens: np.ndarray | None = None, **options: Any) -> Arrays:
    """All sites and logits of tokens, in a fresh session."""
    with small.model.session(**options) as session:
        return session.inspect(small.tokens if tokens is None else tokens, "logits", sites=list(SITES))


def assert_close(found: np.ndarray, expected: np.ndarray, what: str = "") -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-4, err_msg=what)


def test_every_site_shows_the_values_of_a_float64_run(small: Small) -> None:
    seen = look(small)

    def compare(site: str, layer: int, values: np.ndarray) -> np.ndarray:
        assert_close(seen[site][layer] if SITES[site].has_layers else seen[site], values, f"{site} {layer}")
        return values

    assert_close(seen["logits"], edited_reference.run(small.reference, small.tokens, compare))


def test_names_are_those_of_the_library(small: Small) -> None:
    """Numbers and widths are one table in C and another in Python."""
    from fastgpt_c.native.lib import ffi, lib

    names = [ffi.string(lib.fastgpt_site_name(i)).decode() for i in range(lib.FASTGPT_N_SITES)]
    assert names == list(SITES) == [site.name for site in SITES.values()]
    assert [site.number for site in SITES.values()] == list(range(len(names)))


# ---- Edits ----


def random_edit(small: Small, rng: np.random.Generator, n_tokens: int) -> Edit:
    site = SITES[rng.choice(list(SITES))]
    head = int(rng.integers(small.model.n_head)) if site.kind in ("heads", "keys") and rng.random() < 0.7 else None
    ops = ["set", "add", "scale", "zero", "mean", "project_out"]
    op: Any = rng.choice(ops[:-1] if site.kind == "keys" else ops)
    first = int(rng.integers(n_tokens))
    last = None if rng.random() < 0.3 else int(rng.integers(first, n_tokens))
    value = None
    if op != "zero":
        n_rows = 1 if rng.random() < 0.5 else (n_tokens - 1 if last is None else last) - first + 1
        width = small.width(site, head is not None)
        value = rng.standard_normal((n_rows, width if op == "project_out" or rng.random() < 0.7 else 1))
        value = value[0] if n_rows == 1 and rng.random() < 0.5 else value
        if site.name == "scores" and op in ("set", "add") and rng.random() < 0.3:
            value = np.where(rng.random(value.shape) < 0.3, -np.inf, value)
    return Edit(int(rng.integers(3)) if site.has_layers else 0, site.name, op, value, head, first, last)


@pytest.mark.parametrize("deterministic", [False, True])
def test_random_edits_equal_those_of_a_float64_run(small: Small, deterministic: bool) -> None:
    """Up to three edits of each sequence of a ragged batch, over a part of the tokens or all of them."""
    rng = np.random.default_rng(5)
    for _ in range(0, N_EDITED_RUNS, 4):
        edits = [[random_edit(small, rng, 11) for _ in range(rng.integers(4))] for _ in range(4)]
        sessions = [small.model.session(deterministic=deterministic) for _ in edits]
        batch = [Span(session, small.tokens, some) for session, some in zip(sessions, edits, strict=True)]
        logits = fastgpt_c.step(batch, all_logits=True).reshape(4, 11, -1)
        for found, some in zip(logits, edits, strict=True):
            expected = edited_reference.run(small.reference, small.tokens, edited_reference.edited(some))
            scale = max(1.0, float(np.abs(expected).max()))
            assert_close(found / scale, expected / scale, str(some))


def steps_of_everything(small: Small, seen: Arrays) -> list[Edit]:
    """For each site an edit that sets what is there, and edits that change nothing."""
    edits = []
    for site in SITES.values():
        for layer in range(3 if site.has_layers else 1):
            values = seen[site.name][layer] if site.has_layers else seen[site.name]
            if site.kind == "keys":
                for head, rows in enumerate(values):
                    shown = np.where(np.isneginf(rows), 0, rows)
                    edits.append(Edit(layer, site.name, "set", shown, head))
            else:
                edits.append(Edit(layer, site.name, "set", values))
            edits.append(Edit(layer, site.name, "scale", 1.0))
            edits.append(Edit(layer, site.name, "add", 0.0, first=3, last=4))
    return edits


def assert_same(a: Arrays, b: Arrays) -> None:
    for name, values in a.items():
        np.testing.assert_array_equal(values, b[name], err_msg=name)


def assert_near(a: Arrays, b: Arrays) -> None:
    for name, values in a.items():
        np.testing.assert_allclose(values, b[name], rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("deterministic", [False, True])
def test_setting_what_is_there_changes_no_bit(small: Small, deterministic: bool) -> None:
    """Nor do an empty list, a scale of 1 and an addition of 0, at all sites at once and at each of them; nor does
    looking.  Where steps are not deterministic, what is added to the residual stream is computed again for the edited
    rows alone, and differs by a rounding."""
    same = assert_same if deterministic else assert_near
    expected = look(small, deterministic=deterministic)
    edits = steps_of_everything(small, expected)
    with small.model.session(deterministic=deterministic) as session:
        same({"logits": expected["logits"]}, {"logits": session.prefill(small.tokens, True, edits=[])})
        keys = [session.keys(layer) for layer in range(3)]
        for some in (edits, *([edit] for edit in edits)):
            session.truncate(0)
            same(expected, session.inspect(small.tokens, "logits", sites=list(SITES), edits=some))
            same({"keys": np.stack(keys)}, {"keys": np.stack([session.keys(layer) for layer in range(3)])})


@pytest.mark.parametrize("kv_type", ["f32", "f16"])
def test_an_edit_never_touches_a_neighbour(small: Small, kv_type: str) -> None:
    """In a batch, a sequence has the bits that it has beside unedited ones, its keys and values too."""
    rng = np.random.default_rng(1)
    calm, wild = [], []
    for edits, found in ((False, calm), (True, wild)):
        sessions = [small.model.session(kv_type=kv_type) for _ in range(3)]
        some = [random_edit(small, rng, 11) for _ in range(40)] if edits else []
        spans = [Span(session, small.tokens, some if i == 1 else ()) for i, session in enumerate(sessions)]
        logits = fastgpt_c.step(spans)
        found += [logits[[0, 2]], *(s.keys(2) for s in sessions[::2]), *(s.values(2) for s in sessions[::2])]
        assert edits == (np.abs(logits[1] - logits[0]).max() > 1e-3)
    for expected, actual in zip(calm, wild, strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_threads_and_splits_do_not_matter(small: Small) -> None:
    """Any number of threads, and in deterministic sessions any split into steps, gives the same bits."""
    rng = np.random.default_rng(2)
    edits = [
        Edit(1 if site.has_layers else 0, site.name, "scale", rng.standard_normal(), None, int(rng.integers(4)))
        for site in SITES.values()
    ]
    found = []
    for n_threads, cut in ((1, 11), (2, 11), (3, 11), (1, 4), (2, 7)):
        with small.model.session(n_threads=n_threads, deterministic=True) as session:
            logits = session.prefill(small.tokens[:cut], True, edits=edits)
            rest = [session.prefill([token], True, edits=edits) for token in small.tokens[cut:]]
            found.append(np.concatenate([logits, *rest]))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_later_positions_see_edited_keys_and_values(small: Small) -> None:
    """What an edit makes of k and v is in the cache, for steps to come."""
    edits = [Edit(1, "k", "zero", head=0, last=6), Edit(2, "v", "scale", 2.0, first=3, last=6)]
    expected = edited_reference.run(small.reference, small.tokens, edited_reference.edited(edits))
    with small.model.session() as session:
        session.prefill(small.tokens[:7], edits=edits)
        assert_close(session.prefill(small.tokens[7:], True), expected[7:])
        width = small.model.n_embd // small.model.n_head
        assert not session.keys(1)[:7, :width].any() and session.keys(1)[7:, :width].any()


def test_a_row_of_scores_that_are_all_hidden_attends_to_nothing(small: Small) -> None:
    with small.model.session() as session:
        edits = [Edit(1, "scores", "set", -np.inf, 0, 4, 4)]
        seen = session.inspect(small.tokens, "logits", "pattern", "z", edits=edits)
    assert not seen["pattern"][1, 0, 4].any() and not seen["z"][1, 4, 0].any()
    assert np.isfinite(seen["logits"]).all()


# ---- Refusals ----


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Edit(0, "residpre", "zero"), "did you mean resid_pre"),
        (lambda: Edit(0, "z", "zap", 1.0), "op is 'zap', not one of set, add"),
        (lambda: Edit(0, "z", "set"), "takes a value"),
        (lambda: Edit(0, "z", "zero", 1.0), "takes no value"),
        (lambda: Edit(0, "z", "zero", last=-1), "last is -1"),
        (lambda: Edit(3, "z", "zero"), "layer 3 of z is not in"),
        (lambda: Edit(-1, "z", "zero"), "layer -1 of z"),
        (lambda: Edit(1, "ln_f", "zero"), "ln_f has no layers"),
        (lambda: Edit(0, "z", "zero", head=3), "head 3 is not in"),
        (lambda: Edit(0, "ln_1", "zero", head=0), "ln_1 has no heads"),
        (lambda: Edit(0, "ln_1", "set", np.ones(7)), "a row of ln_1 has 7 numbers, not 1 or"),
        (lambda: Edit(0, "ln_1", "set", np.ones((3, 1)), first=3), "3 rows of values, not 1 or 5"),
        (lambda: Edit(0, "ln_1", "set", np.ones((3, 1, 1))), "shape"),
        (lambda: Edit(0, "ln_1", "set", "seven"), "not an array of numbers"),
        (lambda: Edit(0, "ln_1", "set", np.nan), "value 0 of row 0 is nan"),
        (lambda: Edit(0, "ln_1", "add", -np.inf), "value 0 of row 0 is -inf"),
        (lambda: Edit(0, "scores", "set", np.inf), "value 0 of row 0 is inf"),
        (lambda: Edit(0, "scores", "project_out", np.ones(8)), "no directions"),
        (lambda: Edit(0, "ff_pre", "project_out", 1.0), "a direction of ff_pre has 1 numbers"),
        (lambda: Edit(0, "ln_1", "project_out", 0.0), "a direction of ln_1"),
        (lambda: Edit(0, "ln_1", "zero", first=8), r"positions \[8, -1\] are not in \[0, 7\]"),
        (lambda: Edit(0, "ln_1", "zero", first=6, last=5), r"positions \[6, 5\]"),
        (lambda: Edit(0, "ln_1", "zero", last=1), "not in the step, which begins at 2"),
        (lambda: Edit(0, "ln_1", "zero", last=2**31 - 1), "positions"),
        (lambda: "zero", "'zero', not an Edit"),
    ],
)
def test_a_wrong_edit_is_named_and_nothing_is_written(small: Small, make: Any, complaint: str) -> None:
    """Beside a right one, and the sessions are as they were."""
    with small.model.session() as session, small.model.session() as other:
        session.prefill([1, 2])
        with pytest.raises(UsageError, match=complaint):
            fastgpt_c.step([(other, [5]), Span(session, [3, 4, 5, 6, 7, 8], [Edit(0, "z", "zero"), make()])])
        assert (session.n_past, other.n_past) == (2, 0)


# ---- Hooks ----


def test_a_hook_changes_what_an_edit_would(small: Small) -> None:
    """At every site, in place or by what it returns."""
    rng = np.random.default_rng(3)
    for site in SITES.values():
        layer = 1 if site.has_layers else 0
        factor = rng.standard_normal(1).astype(np.float32)[0]

        def in_place(values: np.ndarray, point: fastgpt_c.HookPoint, factor: Any = factor) -> None:
            values *= np.where(np.isneginf(values), 1, factor)

        def returned(values: np.ndarray, point: fastgpt_c.HookPoint, factor: Any = factor) -> np.ndarray:
            return np.where(np.isneginf(values), 0, values * factor)

        with small.model.session(deterministic=True) as session:
            expected = session.prefill(small.tokens, True, edits=[Edit(layer, site.name, "scale", factor)])
            for hook in (in_place, returned):
                session.truncate(0)
                found = session.prefill(small.tokens, True, hooks={(site.name, layer): hook})
                np.testing.assert_array_equal(found, expected, err_msg=site.name)


def test_hooks_see_each_session_with_its_positions(small: Small) -> None:
    """Values are those of inspect, and a hook that changes nothing changes no bit."""
    points = []

    def record(values: np.ndarray, point: fastgpt_c.HookPoint) -> None:
        points.append((point, values))

    expected = look(small)
    sessions = [small.model.session() for _ in range(2)]
    sessions[1].prefill(small.tokens[:4])
    hooks = {(site.name, 2 if site.has_layers else 0): record for site in SITES.values()}
    logits = fastgpt_c.step([(sessions[0], small.tokens), (sessions[1], small.tokens[4:])], hooks=hooks)
    assert_close(logits, expected["logits"][[-1, -1]])
    assert len(points) == 2 * len(SITES)
    for point, values in points:
        site, first = SITES[point.site], 4 * point.span
        assert point.first == first
        whole = expected[point.site][2] if site.has_layers else expected[point.site]
        assert_close(values, whole[:, first:] if site.kind == "keys" else whole[first:], point.site)


@pytest.mark.parametrize(
    ("hook", "error", "complaint"),
    [
        (lambda values, point: 1 / 0, ZeroDivisionError, "division by zero"),
        (lambda values, point: values[:1], UsageError, "returned the shape"),
        (lambda values, point: values * np.nan, UsageError, "returned NaN"),
        (lambda values, point: "no", UsageError, "not an array of numbers"),
    ],
)
def test_what_a_hook_raises_is_raised_by_the_step(small: Small, hook: Any, error: Any, complaint: str) -> None:
    """And the session is as it was, and works."""
    with small.model.session() as session:
        expected = session.prefill(small.tokens)
        session.truncate(4)
        for key in (("embed", 0), ("resid_pre", 0), ("pattern", 1), ("ff_out", 2), ("ln_f", 0)):
            with pytest.raises(error, match=complaint):
                session.prefill(small.tokens[4:], hooks={key: hook})
            assert session.n_past == 4
        np.testing.assert_allclose(session.prefill(small.tokens[4:]), expected, rtol=1e-4, atol=1e-4)
        for hooks in ({"z": hook}, {("z", 7): hook}, {("zz", 0): hook}, {("z", 0): 3}, [hook]):
            with pytest.raises(UsageError):
                session.prefill([1], hooks=hooks)


# ---- A start in the middle ----


def test_a_start_with_the_residuals_of_a_run_is_that_run(small: Small) -> None:
    """From any layer, after any prefix, with fewer layers or only the last norm to compute: bits of deterministic
    sessions."""
    with small.model.session(deterministic=True) as clean:
        seen = clean.inspect(small.tokens, "logits", "hidden")
        for n_prefix in (0, 1, 6):
            for layer in range(4):
                with clean.fork(n_prefix) as fork:
                    resid = seen["hidden"][layer, n_prefix:]
                    logits = fork.prefill(small.tokens[n_prefix:], True, start_layer=layer, resid=resid)
                    np.testing.assert_array_equal(logits, seen["logits"][n_prefix:])
                    assert fork.start_layer == layer


def test_spans_that_start_anywhere_share_a_step(small: Small) -> None:
    """In any order; each with an edit of its own that the float64 run makes, too."""
    rng = np.random.default_rng(4)
    with small.model.session() as clean:
        seen = clean.inspect(small.tokens, "hidden")
        spans, expected = [], []
        for layer in (2, 0, 1, 3, 0, 2):
            edits = [Edit(layer, "resid_pre", "add", rng.standard_normal(small.model.n_embd), None, 7, 8)]
            edits = edits if layer < 3 else [Edit(0, "ln_f", "scale", 2.0, first=10)]
            resid = seen["hidden"][layer, 6:] if layer else None
            spans.append(Span(clean.fork(6), small.tokens[6:], edits, layer, resid))
            expected.append(edited_reference.run(small.reference, small.tokens, edited_reference.edited(edits))[6:])
        for all_logits in (True, False):
            logits = fastgpt_c.step(spans, all_logits)
            rows = np.concatenate(expected) if all_logits else np.stack([e[-1] for e in expected])
            assert_close(logits, rows)
            for span in spans:
                span.session.truncate(6)


def test_skipped_layers_are_never_read(small: Small) -> None:
    """A session that lacks keys of some layers takes steps from there on alone, until it is truncated."""
    with small.model.session(deterministic=True) as session:
        expected = session.inspect(small.tokens, "logits", "hidden")
        session.truncate(5)
        session.prefill(small.tokens[5:8], start_layer=2, resid=expected["hidden"][2, 5:8])
        for step in (
            lambda: session.prefill([1]),
            lambda: session.decode(1),
            lambda: session.prefill([1], start_layer=1, resid=expected["hidden"][1, :1]),
            lambda: session.fork(7).prefill([1]),
            lambda: session.copy().prefill([1]),
            lambda: session.keys(1),
            lambda: session.save("/nowhere/at-all"),
        ):
            with pytest.raises(UsageError, match=r"layer|skipped"):
                step()
        assert session.n_past == 8 and session.keys(2).shape[0] == 8
        logits = session.prefill(small.tokens[8:], start_layer=2, resid=expected["hidden"][2, 8:])
        np.testing.assert_array_equal(logits, expected["logits"][-1])
        assert session.fork(5).start_layer == 0
        session.truncate(5)
        np.testing.assert_array_equal(session.prefill(small.tokens[5:]), expected["logits"][-1])
        assert session.start_layer == 0


def test_inspect_leaves_skipped_layers_at_nan(small: Small) -> None:
    with small.model.session() as session:
        hidden = session.inspect(small.tokens, "hidden")["hidden"]
        session.truncate(0)
        seen = session.inspect(small.tokens, sites=list(SITES), start_layer=1, resid=hidden[1])
    for site in SITES.values():
        values = seen[site.name]
        if site.has_layers:
            assert np.isnan(values[0]).all() and not np.isnan(values[1:]).any()
        else:
            assert np.isnan(values).all() == (site.name != "ln_f")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"start_layer": 4}, "start_layer is 4, not in"),
        ({"start_layer": -1}, "start_layer is -1, not in"),
        ({"start_layer": 1}, "needs residuals"),
        ({"start_layer": 1, "resid": np.zeros((1, 2))}, "resid has the shape"),
        ({"start_layer": 1, "resid": np.nan}, "residuals is nan"),
        ({"start_layer": 1, "resid": 0.0, "edits": [Edit(0, "z", "zero")]}, "not computed: span 0 starts at layer 1"),
        ({"resid": 0.0, "edits": [Edit(0, "embed", "zero")]}, "not computed"),
    ],
)
def test_a_wrong_start_is_refused(small: Small, options: dict[str, Any], complaint: str) -> None:
    if np.ndim(options.get("resid", [])) == 0:
        options = {**options, "resid": np.full((2, small.model.n_embd), options["resid"])}
    with small.model.session() as session:
        with pytest.raises(UsageError, match=complaint):
            session.prefill([1, 2], **options)
        assert session.n_past == 0
