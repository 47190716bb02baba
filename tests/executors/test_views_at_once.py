# SPDX-License-Identifier: Apache-2.0
"""Views of one image are encoded in smaller parts where the device runs out of memory."""

import torch
from tta_bench.adapters.vte import Vte

import tta_bench as tb
from tta_bench.models.source import SourceModel


def test_fewer_views_are_encoded_at_once_where_memory_runs_out(tmp_path, monkeypatch):
    encode, most = SourceModel.encode, 10**9

    def hungry(self, x, *arguments, **more):
        if len(x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(self, x, *arguments, **more)

    monkeypatch.setattr(SourceModel, "encode", hungry)

    def rows(folder):
        monkeypatch.setenv("TTA_BENCH_CACHE", str(tmp_path / folder / "cache"))  # or features would be read
        output = tmp_path / folder / "runs"
        run = tb.evaluate(Vte(), "pocket", limit=4, batch_size=4, device="cpu", output=output, memory=False)
        (manifest,) = run.manifests()
        assert manifest.status == "complete", manifest.error
        return run.frame()["prediction"].tolist(), manifest.outcome

    roomy, first = rows("roomy")
    views = Vte().view_policy().count
    most = views // 2
    tight, second = rows("tight")
    assert (first.views_at_once, first.out_of_memory) == (None, 0)
    assert (second.views_at_once, second.out_of_memory) == ((views + 1) // 2, 1)
    assert tight == roomy
