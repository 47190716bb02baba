# SPDX-License-Identifier: Apache-2.0
"""ActMAD: the source moments, which layers are matched, and the step."""

import pytest
import torch
from tta_bench.adapters.actmad import ActMad

from tta_bench.checks import check_method
from tta_bench.errors import BadInputError, UnknownNameError
from tta_bench.testing import tiny_images, tiny_source, tiny_task


@pytest.mark.parametrize(
    "method", [ActMad(), ActMad(logits_from="before", average="images", optimizer="adam", steps=2)], ids=["sgd", "adam"]
)  # fmt: skip
def test_it_keeps_its_promises(method):
    assert not [result for result in check_method(method) if result.bad]


@pytest.mark.parametrize("average", ["batches", "images"])
def test_source_moments_are_over_the_images_at_each_location(average, source):
    method = ActMad(average=average, layers=("blocks.0.norm1",), samples=10)
    task = tiny_task(source, method, batch_size=4)
    state = method.init(source, task)
    parts = [task.source.batch(i, 4)[0][:n] for i, n in enumerate((4, 4, 2))]
    outputs = [
        source.observe(images, layers=("blocks.0.norm1",)).outputs["blocks.0.norm1"] for images in parts
    ]
    if average == "images":
        mean, var = torch.cat(outputs).mean(0), torch.cat(outputs).var(0)
    else:
        mean = torch.stack([one.mean(0) for one in outputs]).mean(0)
        var = torch.stack([one.var(0) for one in outputs]).mean(0)
    assert mean.ndim == 3
    torch.testing.assert_close(state["source_mean"]["blocks.0.norm1"], mean)
    torch.testing.assert_close(state["source_var"]["blocks.0.norm1"], var)


def test_norms_are_matched_as_far_as_they_say_something_of_the_image(source):
    assert len(ActMad()._matched(source)) == 7
    vit = tiny_source("layer")
    assert ActMad()._matched(vit) == (
        "blocks.0.ln_2", "blocks.1.ln_1", "blocks.1.ln_2", "blocks.2.ln_1", "blocks.2.ln_2", "norm",
    )  # fmt: skip
    assert ActMad(layers=("norm",)).notes(vit)["matched_layers"] == "norm"


def test_the_step_lowers_the_loss_and_leaves_the_classifier(source, batches, run):
    method = ActMad(lr=0.001, momentum=0.0, nesterov=False, weight_decay=0.0)
    states, scores = run(method, source, [batches[0]] * 4)
    assert "fc.weight" not in states[-1]["params"]
    assert {"stem.weight", "norm.bias"} <= set(states[-1]["params"])
    names = ActMad()._matched(source)

    def loss(state):
        seen = source.observe(batches[0], state["params"], layers=names).outputs
        away = [(seen[n].mean(0) - state["source_mean"][n]).abs().mean() for n in names]
        return sum(away) + sum((seen[n].var(0) - state["source_var"][n]).abs().mean() for n in names)

    assert loss(states[-1]) < 0.97 * loss(states[0])
    torch.testing.assert_close(scores[0], source.logits(batches[0], states[1]["params"]))


def test_one_image_is_predicted_and_changes_nothing(source, run, same):
    states, scores = run(ActMad(), source, [tiny_images(source, 1, 0)])
    assert same(*states)
    torch.testing.assert_close(scores[0], source.logits(tiny_images(source, 1, 0)))


def test_batches_of_one_source_image_have_no_variance(source):
    method = ActMad()
    with pytest.raises(BadInputError, match="average=images"):
        method.init(source, tiny_task(source, method, batch_size=1))
    pooled = ActMad(average="images")
    assert pooled.init(source, tiny_task(source, pooled, batch_size=1))["source_var"]["norm"].any()


def test_layers_that_are_not_there_are_refused(source):
    method = ActMad(layers=("norm0",))
    with pytest.raises(UnknownNameError):
        method.init(source, tiny_task(source, method))


@pytest.mark.parametrize(
    "values", [{"steps": 0}, {"samples": 0}, {"scale": -1.0}, {"average": "all"}, {"logits_from": "during"}]
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(BadInputError):
        ActMad(**values)
