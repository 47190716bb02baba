# SPDX-License-Identifier: Apache-2.0
"""The cache is listed, checked and pruned, and says where it is and how large it may be."""

import pytest

import tta_bench as tb

RUN = {"limit": 12, "memory": False}


@pytest.fixture
def filled(tmp_path, cache):
    """A cache with features of two shifts and one initial state."""
    tb.evaluate("clip", ["pocket-c:fog", "pocket-v2"], output=tmp_path / "runs", **RUN)
    tb.evaluate("eata", "pocket-c:fog", settings=("samples=16",), output=tmp_path / "runs", **RUN)
    return cache


def words(done):
    return " ".join(done.out.split())


def test_the_cache_from_end_to_end(filled, tta_bench, monkeypatch):
    listed = tta_bench("cache", "list")
    assert listed.code == 0
    assert str(filled) in listed.out.replace("\n", "")
    said = words(listed)
    assert "in 3 entries, limit 10,240 MiB (TTA_BENCH_CACHE_LIMIT)" in said
    assert "12 images of pocket-c:fog:5 by pocket-clip, seed 0" in said
    assert "12 images of pocket-v2 by pocket-clip, seed 0" in said
    assert "eata[samples=16] · pocket-bn · pocket-c:fog:5" in said
    assert "3 files are as they were written" in words(tta_bench("cache", "check"))

    (path, _) = sorted((filled / "features").glob("*/*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    checked = tta_bench("cache", "check")
    assert checked.code == 1
    assert f"damaged: {path}" in checked.out.replace("\n", "")
    monkeypatch.setenv("TTA_BENCH_CACHE_LIMIT", "3GiB")
    assert "TTA_BENCH_CACHE_LIMIT 3,072 MiB for features and initial states" in words(tta_bench("doctor"))
    assert tta_bench("cache", "prune").code == 0
    assert not path.exists()
    assert tta_bench("cache", "check").code == 0

    assert "removed 3 of 3 entries" in words(tta_bench("cache", "prune", "--all"))
    assert "0.0 MiB in 0 entries" in words(tta_bench("cache", "list"))


def test_pruning_to_a_size_removes_what_was_used_longest_ago(filled, tta_bench):
    assert tta_bench("cache", "prune", "--to", "1TB").code == 0
    assert len(list((filled / "features").iterdir())) == 2
    assert tta_bench("cache", "prune", "--to", "1B").code == 0
    assert not list((filled / "features").iterdir())


def test_sizes_that_are_none_are_refused(tta_bench):
    done = tta_bench("cache", "prune", "--to", "much")
    assert (done.code, "500MB" in done.err) == (2, True)
    done = tta_bench("cache", "prune", "--to", "1GB", "--all")
    assert done.code == 2
