# SPDX-License-Identifier: Apache-2.0
"""Token rows of prompts against the libraries' own text towers."""

import open_clip
import pytest
import torch
from torch import nn

from tta_bench.errors import IncompatibleError
from tta_bench.models.layers import plain_attention
from tta_bench.models.text import TextSide
from tta_bench.testing import tiny_clip

TEXT = {"context_length": 12, "vocab_size": 64, "width": 32, "heads": 2, "layers": 2}
VISION = {"image_size": 16, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8}
SIGLIP = {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
NAMES = ("cat", "red fox", "teapot")
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")


def words(prompts, start=True):
    """Token ids, one for each word, with or without a start token; the end token has the largest id."""
    table = {
        word: index
        for index, word in enumerate(
            ["a", "photo", "of", "the", "cat", "red", "fox", "teapot", "art", "."], 2
        )
    }
    rows = []
    for prompt in prompts:
        ids = [*([1] if start else []), *(table[word] for word in prompt.replace(".", " .").split()), 63]
        rows.append(ids + [0] * (TEXT["context_length"] - len(ids)))
    return torch.tensor(rows)


def text_side(kind, dtype=torch.float32):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "clip":
            model = open_clip.CLIP(8, VISION, TEXT, quick_gelu=True)
        else:
            model = open_clip.CustomTextCLIP(8, VISION, TEXT | (SIGLIP if kind == "siglip" else {}))
    model = model.eval().requires_grad_(False).to(dtype)
    scale = torch.tensor(100.0, dtype=dtype)
    side = TextSide(
        model, lambda prompts: words(prompts, kind != "siglip"), NAMES, ("a photo of a {}.",), scale=scale
    )
    return model, side


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["clip", "custom", "siglip"])
def test_rows_encode_as_the_library_encodes_tokens(kind, dtype):
    model, side = text_side(kind, dtype)
    prompts = ["a photo of a cat.", "art of the red fox", "teapot"]
    tokens, rows = side.rows(prompts)
    assert rows.shape == (3, 12, 32)
    with torch.no_grad():
        expected = model.encode_text(tokens)
        assert torch.equal(side.encode_rows(rows, tokens), expected)
    assert torch.equal(side.features(prompts), expected)
    context = side.context("a photo of a")
    assert context.ctx.shape == (4, 32)
    assert context.start == (0 if kind == "siglip" else 1)
    with torch.no_grad():
        own = context.encode(context.ctx)
    assert torch.equal(own, side.features([f"a photo of a {name}." for name in NAMES]))
    assert side.context("a photo of a") is context


@pytest.mark.parametrize("kind", ["clip", "custom", "siglip"])
def test_a_context_has_a_gradient_and_vmaps(kind):
    _, side = text_side(kind, torch.float64)
    context = side.context()
    ctx = context.ctx.clone().requires_grad_()
    direction = torch.linspace(-1, 1, ctx.numel(), dtype=ctx.dtype).view_as(ctx)

    def value(ctx):
        return context.encode(ctx).square().sum()

    (grad,) = torch.autograd.grad(value(ctx), ctx)
    with torch.no_grad():
        step = 1e-6 * direction
        slope = (value(ctx + step) - value(ctx - step)) / 2e-6
    torch.testing.assert_close((grad * direction).sum(), slope, rtol=1e-6, atol=1e-8)
    several = torch.stack([context.ctx, context.ctx + 0.1 * direction])
    with torch.no_grad(), plain_attention():
        loop = torch.stack([context.encode(one) for one in several])
        torch.testing.assert_close(torch.func.vmap(context.encode)(several), loop, rtol=1e-12, atol=1e-12)
    with plain_attention():
        grads = torch.func.vmap(torch.func.grad(value))(several)
    torch.testing.assert_close(grads[0], grad, rtol=1e-10, atol=1e-12)


def test_the_hook_leaves_nothing_behind():
    model, side = text_side("clip")
    tokens, rows = side.rows(["a photo of a cat."])
    with pytest.raises(RuntimeError):
        side.encode_rows(rows[:, :3], tokens)
    with torch.no_grad():
        assert torch.equal(side.features(["a photo of a cat."]), model.encode_text(tokens))


def test_a_shorter_context_replaces_the_first_rows_alone():
    _, side = text_side("clip")
    context = side.context()
    rows = context.rows(torch.zeros(2, 32))
    assert not rows[:, 1:3].any()
    assert torch.equal(rows[:, 3:], context.rows(context.ctx)[:, 3:])


def test_a_tower_without_token_embeddings_is_refused():
    side = tiny_clip().text
    side._model = nn.Linear(2, 2)
    with pytest.raises(IncompatibleError, match="token embeddings"):
        side.rows(["a cat"])


def test_words_without_tokens_are_refused():
    with pytest.raises(IncompatibleError, match="no tokens of its own"):
        tiny_clip().text.context("")
