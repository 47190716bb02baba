# SPDX-License-Identifier: Apache-2.0
"""Zero-shot scores with the prompts of a method are recorded where they are not those of the source model."""

import pytest
import torch
from torch.nn import functional as F

import tta_bench as tb
from tta_bench.engine.prompted import own_prompts
from tta_bench.prompts import sentences
from tta_bench.testing import tiny_clip

TEMPLATES = ("a {} there.", "no {} here.")


def test_prototypes_are_the_mean_over_the_templates_of_the_method():
    source = tiny_clip(classes=4)
    text, names = source.text, source.class_names
    found = own_prompts(source, (*sentences(TEMPLATES, names), "a {} that depends on the image"))
    assert found.sentences == sentences(TEMPLATES, names)
    images = torch.rand(5, *source.image_shape, generator=torch.Generator().manual_seed(0))
    expected = text.logits(source.encode(images), text.prototypes(TEMPLATES))
    torch.testing.assert_close(found.logits(images), expected)
    each = F.normalize(text.features(sentences(TEMPLATES[:1], names)), dim=-1)
    twice = own_prompts(source, sentences(TEMPLATES[:1] * 2, names))
    torch.testing.assert_close(twice.prototypes, each)


def test_without_prompts_of_its_own_there_is_nothing_to_add():
    source = tiny_clip(classes=4)
    assert own_prompts(source, ()) is None
    assert own_prompts(source, source.text.sentences) is None
    assert own_prompts(source, ("an ant and a bee in {}.",)) is None
    assert own_prompts(source, ("no", "class", "is", "named")) is None


@pytest.mark.filterwarnings("ignore")
def test_rows_hold_them_and_the_table_has_the_difference(tmp_path):
    found = tb.evaluate(
        ["watt", "tda"], "pocket-c:fog", limit=16, batch_size=8, settings=("watt.steps=1",), memory=False,
        output=tmp_path / "runs",
    )  # fmt: skip
    frame = found.frame(["prediction", "zero_shot_prediction", "source_prediction", "label"])
    assert frame[frame.method == "tda"].zero_shot_prediction.isna().all()
    own = frame[frame.method == "watt"]
    assert own.zero_shot_prediction.notna().all()
    rows = {row.method: row for row in found}
    assert rows["watt"].prompts_accuracy == pytest.approx((own.zero_shot_prediction == own.label).mean())
    assert rows["tda"].prompts_gain == rows["tda"].gain
    assert "same prompts" in str(found)
