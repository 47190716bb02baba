# SPDX-License-Identifier: Apache-2.0
"""Records as a pandas table."""

import pytest

from tta_bench.errors import StoreError
from tta_bench.records.frame import read_frame

from . import synthetic


def test_a_frame_holds_every_image_with_the_facts_of_its_cell(tmp_path):
    store = synthetic.run_folder(str(tmp_path / "runs"), cells=4, images=30, shifts=2)
    frame = read_frame(str(tmp_path / "runs"))
    assert len(frame) == 4 * 30
    assert (frame["correct"] == (frame["label"] == frame["prediction"])).all()
    by_cell = frame.groupby("cell", observed=True)["correct"].mean()
    for manifest in store.manifests():
        table = store.read(manifest.id, ["label", "prediction"]).to_pandas()
        assert by_cell[manifest.id] == pytest.approx((table["label"] == table["prediction"]).mean())
        assert set(frame.loc[frame["cell"] == manifest.id, "method"]) == {manifest.cell.method}
    some = read_frame(str(tmp_path / "runs"), ["image_id", "confidence"])
    assert list(some.columns) == ["method", "variant", "model", "dataset", "image_id", "confidence"]


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(StoreError, match="there is no run folder"):
        read_frame(str(tmp_path / "nowhere"))
