# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from safetensors.torch import save_file
from tta_bench.adapters.promptalign import PromptAlign

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError, IncompatibleError
from tta_bench.testing import tiny_clip, tiny_source, tiny_task

from .view_tuning import VIEWS, episode


def tensors(width=16, tokens=19, depth=0):
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return 0.1 * torch.randn(*shape, generator=generator)

    found = {
        "ctx": drawn(2, 16), "proj.weight": drawn(width, 16), "proj.bias": drawn(width),
        "source_means": drawn(3, tokens, width), "source_vars": drawn(3, tokens, width).abs(),
    }  # fmt: skip
    for index in range(depth):
        found[f"compound_prompts_text.{index}"] = drawn(2, 16)
        found[f"compound_prompt_projections.{index}.weight"] = drawn(width, 16)
        found[f"compound_prompt_projections.{index}.bias"] = drawn(width)
    return found


@pytest.fixture
def file(tmp_path):
    def write(name="maple.safetensors", **changes):
        path = tmp_path / name
        save_file({**tensors(), **changes}, path)
        return str(path)

    return write


def test_it_keeps_the_contract(file):
    assert not [result for result in check_method(PromptAlign(weights=file(), views=4)) if result.bad]


def test_without_a_file_it_says_what_it_needs(tmp_path, file):
    source = tiny_clip()
    with pytest.raises(BadInputError, match="setting weights=FILE, with ctx"):
        PromptAlign().init(source, tiny_task(source, PromptAlign()))
    with pytest.raises(BadInputError, match="expected a safetensors file"):
        PromptAlign(weights=str(tmp_path / "none")).init(source, tiny_task(source, PromptAlign()))
    partial = tmp_path / "partial.safetensors"
    save_file({"ctx": torch.zeros(2, 16)}, partial)
    with pytest.raises(BadInputError, match=r"do not have the tensor 'proj\.weight'"):
        PromptAlign(weights=str(partial)).init(source, tiny_task(source, PromptAlign()))


def test_prompts_of_another_model_are_refused(tmp_path, file):
    path = tmp_path / "wide.safetensors"
    save_file(tensors(width=24), path)
    source = tiny_clip()
    with pytest.raises(IncompatibleError, match=r"\(16, 16, 16\).*got \(16, 24, 24\)"):
        PromptAlign(weights=str(path)).init(source, tiny_task(source, PromptAlign()))
    deep = tmp_path / "deep.safetensors"
    save_file(tensors(depth=3), deep)
    method = PromptAlign(weights=str(deep), views=VIEWS)
    with pytest.raises(IncompatibleError, match="deeper model or shallower prompts"):
        method.adapt(*episode(method))
    with pytest.raises(IncompatibleError):
        PromptAlign(weights=file()).init(tiny_source("layer"), tiny_task(source, PromptAlign()))


def test_the_distance_is_that_of_the_statistics_block_by_block(file):
    method = PromptAlign(weights=file(), views=VIEWS, selection=0.5, align_selection=0.25, align_weight=1.0)
    source, state, inputs = episode(method)
    tuned = method.tune(source, state, inputs)
    prompt = state["params"]["ctx"] @ state["params"]["proj.weight"].T + state["params"]["proj.bias"]
    with torch.no_grad():
        seen = source.prompted(inputs.views[0, tuned.extra["order"][0, :2]], [prompt])
    expected = 0.0
    for block in (0, 1):
        x = torch.cat([seen.inputs[block][:, :1], seen.inputs[block][:, 3:], seen.inputs[block][:, 1:3]], 1)
        expected += 0.5 * (x.mean(0) - state["source_means"][block]).abs().mean()
        expected += 0.5 * (x.var(0, correction=0) - state["source_vars"][block]).abs().mean()
    torch.testing.assert_close(tuned.extra["gap"], expected / 3)


def test_the_step_brings_the_statistics_nearer(file):
    method = PromptAlign(
        weights=file(), views=VIEWS, selection=0.5, align_selection=0.5, lr=1e-3, steps=4, marginal=False
    )
    source, state, inputs = episode(method)
    assert (method.tune(source, state, inputs).losses.diff() < 0).all()


def test_the_gradient_is_that_of_the_loss_by_finite_differences(file):
    """Random statistics leave no sign to rounding, as those of the golden cases do."""
    method = PromptAlign(weights=file(), views=VIEWS, selection=0.5, align_selection=0.5)
    source, state, inputs = episode(method, torch.float64)
    start = state["params"]["ctx"]
    tuned = method.tune(source, state, inputs)
    for place in range(0, start.numel(), 5):
        nudge = torch.zeros_like(start)
        nudge.view(-1)[place] = 1e-7
        above, below = (
            method.tune(source, {**state, "params": {**state["params"], "ctx": moved}}, inputs).losses[0]
            for moved in (start + nudge, start - nudge)
        )
        torch.testing.assert_close(
            (above - below) / 2e-7, tuned.grads["ctx"].view(-1)[place], rtol=1e-4, atol=1e-5
        )


def test_values_out_of_range_are_refused():
    for values in ({"align_selection": 0.0}, {"align_weight": -1.0}, {"align_from": 2}):
        with pytest.raises(BadInputError):
            PromptAlign(**values)
