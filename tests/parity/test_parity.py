# SPDX-License-Identifier: Apache-2.0
"""Golden vectors of the published references, and of independent ones of other sizes, seeds and rates."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from tta_bench.adapters.tent import Tent
from typer.testing import CliRunner

from tta_bench.cli.parity import parity
from tta_bench.errors import BadInputError
from tta_bench.parity import online
from tta_bench.parity.judge import was_replayed
from tta_bench.parity.online_case import Plan
from tta_bench.parity.replay import replay

from . import reference_apm, reference_online

HERE = Path(__file__).parent
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")  # timm, on import

GOLDENS = [HERE / "apm", HERE / "online", HERE / "online2"]


def write_apm(folder, **changes):
    sizes = {
        "image": (12, 20), "patch": 4, "grid": (3, 5), "code": 12, "widths": (18, 14, 10), "feature": 12,
        "heads": 3, "updates": 7, "betas": (0.8, 0.95), "lrs": [0.004, 0.0005], "seed": 5,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    reference_apm.write_folder(folder, **(sizes | changes))
    return folder


def write_online(folder, seed=3):
    folder.mkdir(parents=True, exist_ok=True)
    reference_online.write_folder(folder, seed)
    return folder


def call(*arguments):
    app = typer.Typer()
    app.command()(parity)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def failures(results):
    return [result for result in results if not result.passed]


@pytest.mark.parametrize(
    "changes", [{}, {"grid": (5, 2), "heads": 1, "code": 4, "image": (8, 8), "count": 3}]
)
def test_apm_goldens_of_other_sizes_are_met(tmp_path, changes):
    results = list(replay(write_apm(tmp_path, **changes)))
    assert not failures(results)
    assert {"lr0.004/image1", "quirk_carry_adam_step5", "grad0/image0"} <= {result.case for result in results}
    assert max(r.deviation for r in results if r.tolerance == 1e-12) < 1e-13


def test_online_goldens_of_other_sizes_are_met(tmp_path):
    results = {f"{r.method}/{r.case}": r for r in replay(write_online(tmp_path))}
    assert results["norm_ema/tinybatch"].passed
    tent = [result for name, result in results.items() if name.startswith("tent/")]
    assert len(tent) == 4
    assert not failures(tent)
    left_out = {name for name, result in results.items() if not was_replayed(result)}
    assert left_out == {"norm_ema/tinybatch_BROKEN", "unheard_of/tinybatch"}


def spoil(folder, file, name, change):
    with np.load(folder / file) as stored:
        arrays = {key: stored[key] for key in stored.files}
    arrays[name] = change(arrays[name])
    np.savez(folder / file, **arrays)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("lr0.004/loss1", lambda a: a + 1e-11),
        ("lr0.004/pred0", lambda a: a[:, ::-1]),
        ("lr0.004/cos0", lambda a: a + np.eye(*a.shape) * 1e-11),
        ("lr0.0005/final1/fc5.weight", lambda a: a * (1 + 4e-6)),
        ("grad0_1/little_self_attention.in_proj_weight", lambda a: a * (1 + 4e-6)),
        ("quirk_carry_adam_step5/pred1", lambda a: a + 1e-11),
        ("quirk_gradaccum_noscaler/loss0", lambda a: np.where(np.arange(len(a)) == 3, np.nan, a)),
        ("w1/fc1.bias", lambda a: a + 1e-6),
        ("target0", lambda a: a * (1 + 1e-6)),
    ],
)
def test_a_wrong_apm_value_fails(tmp_path, name, change):
    folder = write_apm(tmp_path)
    spoil(folder, "apm.npz", name, change)
    assert failures(replay(folder))


@pytest.mark.parametrize(
    ("file", "name", "change"),
    [
        ("tent.npz", "tinybatch_adam__logits", lambda a: a + 1e-4 * (1 + abs(a)) * (np.arange(7) == 4)),
        ("tent.npz", "tinygroup_sgd__logits_after_reset", lambda a: a[:2] * 1.001),
        ("tent.npz", "tinygroup_sgd__param__bn2.bias", lambda a: a + 1e-4),
        ("tent.npz", "tinybatch_sgd__param__ALL_sum_student", lambda a: a * 1.001),
        ("norm_ema.npz", "tinybatch__logits", lambda a: a[:, :, :6]),
        ("weights.npz", "tinybatch/bn1.running_var", lambda a: a * 1.01),
    ],
)
def test_a_wrong_online_value_fails(tmp_path, file, name, change):
    folder = write_online(tmp_path)
    spoil(folder, file, name, change)
    assert [result for result in failures(replay(folder)) if was_replayed(result)]


def online2_copy(tmp_path, method):
    """Return a copy of the second online folder that has one golden method, with the inputs of the first beside it."""
    folder = tmp_path / "online2"
    shutil.copytree(
        HERE / "online2", folder, ignore=lambda _, names: {n for n in names if n.endswith(".npz")}
    )
    for name in ("weights", method):
        shutil.copy(HERE / "online2" / f"{name}.npz", folder)
    (tmp_path / "online").mkdir()
    shutil.copy(HERE / "online" / "inputs.npz", tmp_path / "online")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["methods"] = {method: manifest["methods"][method]}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tinyvit_n1_K8__losses", lambda a: a + 1e-3 * (np.arange(9) == 3)),
        ("tinyvit_n1_K8__source_std", lambda a: a * 1.001),
        ("tinyvit_n1_K8__param__es.C", lambda a: a + 3e-4 * np.eye(len(a))),
        ("tinyvit_n1_K8__param__prompts", lambda a: a * 1.001),
        ("tinyvit_n1_K10_ragged__logits", lambda a: a + 1e-3 * (np.arange(5)[:, None, None] == 4)),
        ("tinyvit_n1_K8__logits", lambda a: np.where(np.arange(16)[:, None] == 15, np.nan, a)),
    ],
)
def test_a_wrong_result_of_a_search_fails(tmp_path, name, change):
    folder = online2_copy(tmp_path, "foa")
    spoil(folder, "foa.npz", name, change)
    assert [r.case for r in failures(replay(folder, "foa"))] == [name.partition("__")[0]]


def test_a_sorted_stream_is_not_the_plain_one(tmp_path):
    folder = online2_copy(tmp_path, "unmixtns")
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["methods"]["unmixtns"]["tinybn_K16_sorted"]["stream"]
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert [r.case for r in failures(replay(folder))] == ["tinybn_K16_sorted"]


def test_backend_noise_widens_the_tolerance_of_scores_alone(tmp_path):
    folder = write_online(tmp_path)
    spoil(folder, "tent.npz", "tinygroup_sgd__logits", lambda a: a + 3e-4)
    noise = {"tent/tinygroup_sgd": {"max_abs": 1e-4}}
    assert [r.case for r in failures(replay(folder, "tent"))] == ["tinygroup_sgd"]
    (folder / "backend_noise.json").write_text(json.dumps(noise))
    assert not failures(replay(folder, "tent"))
    spoil(folder, "tent.npz", "tinygroup_sgd__param__bn2.bias", lambda a: a + 3e-4)
    assert failures(replay(folder, "tent"))


def test_a_method_can_be_replayed_alone():
    assert {result.method for result in replay(HERE / "online", "norm")} == {
        "norm_test",
        "norm_alpha",
        "norm_ema",
    }
    assert {result.method for result in replay(HERE / "online", "norm_alpha")} == {"norm_alpha"}
    assert not list(replay(HERE / "apm", "tent"))


def test_the_command_sums_up_and_exits_with_the_verdict(tmp_path):
    write_apm(tmp_path / "one")
    write_online(tmp_path / "two")
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "manifest.json").write_text('{"family": "unheard-of"}')
    result = call(tmp_path)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "41 passed, 0 failed, 3 not replayed"
    spoil(tmp_path / "one", "apm.npz", "lr0.004/loss1", lambda a: a + 1)
    result = call(tmp_path, "--method", "apm")
    assert result.exit_code == 1
    assert "3 failed" in result.output
    result = call(tmp_path / "two", "--method", "rotta")
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == "0 passed, 0 failed, 0 not replayed"


@pytest.mark.parametrize(
    "method", ["sar", "deyo", "eata", "shot", "cmf", "cotta", "rotta", "note", "rmt", "adacontrast"]
)
def test_a_case_without_its_hyper_parameters_is_refused_in_one_sentence(tmp_path, method):
    folder = shutil.copytree(HERE / "online", tmp_path / "online")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    name, info = next(iter(manifest["methods"][method].items()))
    manifest["methods"] = {method: {name: info}}
    values = info["hyperparameters"]
    for missing in values:
        info["hyperparameters"] = {key: value for key, value in values.items() if key != missing}
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        result = call(folder)
        if isinstance(result.exception, BadInputError):
            assert f"'{missing}' is missing from " in str(result.exception)
        else:
            assert result.exception is None or isinstance(result.exception, SystemExit)
    info["hyperparameters"] = {}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert isinstance(call(folder).exception, BadInputError)


def test_an_empty_file_of_arrays_is_refused_in_one_sentence(tmp_path):
    folder = write_online(tmp_path)
    (folder / "tent.npz").write_bytes(b"")
    with pytest.raises(BadInputError, match=r"expected an \.npz file, got '.*tent\.npz'"):
        list(replay(folder))


def test_the_command_refuses_what_is_no_golden_folder(tmp_path):
    for folder in (tmp_path / "none", tmp_path):
        assert isinstance(call(folder).exception, BadInputError)
    (tmp_path / "manifest.json").write_text("{")
    assert isinstance(call(tmp_path).exception, BadInputError)
    (tmp_path / "manifest.json").write_text('{"family": "unheard-of"}')
    assert "families that can" in str(call(tmp_path).exception)
    (tmp_path / "manifest.json").write_text('{"family": "apm"}')
    assert isinstance(call(tmp_path).exception, BadInputError)
    shutil.copy(HERE / "online" / "manifest.json", tmp_path)
    assert isinstance(call(tmp_path).exception, BadInputError)


def test_a_case_may_be_off_by_the_rule_or_by_a_share_of_its_noise():
    golden = torch.tensor([0.0, 2.0])
    plan = Plan(Tent())
    rule = torch.tensor([5e-5, 15e-5], dtype=torch.float64)
    assert torch.allclose(online._limit(plan, golden, 0.0), rule)
    assert torch.allclose(online._limit(plan, golden, 2e-5), torch.tensor([1e-4, 15e-5], dtype=torch.float64))
    assert online._limit(replace(plan, tolerance=0.5), golden, 1.0).tolist() == [0.5, 0.5]
