# SPDX-License-Identifier: Apache-2.0
"""The verdict after a run, and ``recommend``."""

import tta_bench as tb


def test_a_run_of_several_methods_ends_with_a_verdict_and_recommend_repeats_it(tta_bench, tmp_path):
    done = tta_bench(
        *("run", "--method", "source", "--method", "norm", "--method", "lame", "--dataset", "pocket-c:fog"),
        *("--limit", 100, "--output", tmp_path / "runs"),
    )
    assert done.code == 0, done.err
    said = next(line for line in done.out.splitlines() if line.startswith("pocket-bn on pocket-c:fog:5: "))
    assert "norm gains +" in said
    assert "lame loses against the source model." in said
    again = tta_bench("recommend", tmp_path / "runs")
    assert again.code == 0
    assert said in again.out
    assert "pocket-c, images in batches, on " in again.out
    results = tb.load(str(tmp_path / "runs"))
    assert [str(one) for one in results.verdicts()] == [said]
    (front,) = results.pareto()
    assert front.rows[0].method == "norm"  # what follows depends on the clock
    assert tta_bench("recommend", tmp_path / "nowhere").code == 2


def test_one_method_alone_has_no_verdict(tta_bench, tmp_path):
    done = tta_bench(
        "run", "--method", "source", "--dataset", "pocket", "--limit", 20, "--output", tmp_path / "runs"
    )
    assert "pocket-bn on pocket" not in done.out
