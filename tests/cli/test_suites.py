# SPDX-License-Identifier: Apache-2.0
"""A suite is parsed, planned whole, run in part, and told in the manifest."""

import json

import pytest

from tta_bench import registry
from tta_bench.engine.planning import plan
from tta_bench.errors import BadInputError, UnknownNameError
from tta_bench.hyperparameters import method_class
from tta_bench.spec import Request, SuiteUse, merged
from tta_bench.suites import Suite, load_suite, suite_names, within

ONLINE = {
    "source", "norm", "tent", "eta", "eata", "sar", "deyo", "cotta", "rotta", "rmt", "roid", "cmf", "memo", "lame",
    "rpl", "adacontrast", "santa", "rdumb", "t3a", "shot-im", "pl", "note", "ttaug",
    "neo", "come-tent", "come-eata", "come-sar", "unmix-tns", "unmix-tns-tent", "actmad", "foa", "petta", "zerosiam",
}  # fmt: skip


def manifests(folder):
    """Return the manifests of a run folder by method."""
    found = [json.loads(path.read_text()) for path in folder.glob("cells/*/manifest.json")]
    return {manifest["cell"]["method"]: manifest for manifest in found}


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_names_what_is_installed(name):
    suite = load_suite(name)
    assert suite.name == name
    assert suite.version >= 1
    for method in suite.options["methods"]:
        preset = suite.options.get("presets", {}).get(method)
        assert preset is None or preset in method_class(method).presets
    assert set(suite.options.get("presets", {})) <= set(suite.options["methods"])


def test_pocket_online_plans_every_online_method_on_every_corruption(tta_bench, tmp_path):
    done = tta_bench("run", "--suite", "pocket-online", "--dry-run", "--output", tmp_path / "runs")
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert f"suite pocket-online, version {load_suite('pocket-online').version}; 495 cells;" in said
    assert "15 corruptions at severity 5; first-200 images per shift" in said
    assert "tent on pocket-bn: reset per shift, 64 images at a time" in said
    assert "memo on pocket-bn: reset per image, 64 images at a time" in said
    assert set(load_suite("pocket-online").options["methods"]) == ONLINE
    assert set(registry.registered("methods")) >= ONLINE
    assert not (tmp_path / "runs").exists()


def test_pocket_vlm_plans_every_method_on_models_of_ours(tta_bench, tmp_path):
    done = tta_bench("run", "--suite", "pocket-vlm", "--dry-run", "--output", tmp_path / "runs")
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert f"suite pocket-vlm, version {load_suite('pocket-vlm').version}; 248 cells;" in said
    assert "4 corruptions at severity 5; first-200 images per shift" in said
    assert "ttl on pocket-vit-clip: reset per image" in said
    assert "rlcf[reward=pocket-clip] · pocket-clip · pocket-sketch" in said


def test_pocket_fashion_puts_the_same_methods_on_one_network_and_real_images(tta_bench, tmp_path):
    suite, online = load_suite("pocket-fashion"), load_suite("pocket-online")
    tokens = {"foa"}  # needs a vision transformer
    assert set(suite.options["methods"]) == set(online.options["methods"]) - tokens
    presets = {name: one for name, one in online.options["presets"].items() if name not in tokens}
    assert suite.options["presets"] == presets
    done = tta_bench("run", "--suite", "pocket-fashion", "--dry-run", "--output", tmp_path / "runs")
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert (
        f"{15 * len(suite.options['methods'])} cells; 15 corruptions at severity 5; first-500 images per shift"
        in said
    )
    assert "sar on pocket-fashion-bn: reset per shift, 64 images at a time" in said


def test_a_part_of_the_suite_runs_and_says_what_was_changed(tta_bench, tmp_path):
    command = ("run", "--suite", "pocket-online", "--corruption", "fog", "--limit", 12, "--output", tmp_path)
    some = [word for name in ("source", "tent", "santa") for word in ("--method", name)]
    done = tta_bench(*command, *some, "--set", "tent.lr=0.002")
    assert done.code == 0, done.err
    found = manifests(tmp_path)
    assert set(found) == {"source", "tent", "santa"}
    assert found["santa"]["cell"]["preset"] == "pocket"
    assert found["santa"]["cell"]["hyperparameters"]["samples"] == 512
    assert found["tent"]["cell"]["preset"] == ""
    assert found["tent"]["cell"]["hyperparameters"]["lr"] == 0.002
    for manifest in found.values():
        assert manifest["status"] == "complete"
        assert manifest["images"] == 12
        assert manifest["cell"]["shifts"] == ["pocket-c:fog:5"]
        assert manifest["cell"]["batch_size"] == 64
        assert manifest["cell"]["suite"] == {
            "name": "pocket-online",
            "version": load_suite("pocket-online").version,
            "changed": ["corruptions", "limit", "methods", "settings"],
        }


def test_a_run_without_a_suite_names_none(tta_bench, tmp_path):
    done = tta_bench("run", "--method", "source", "--dataset", "pocket", "--limit", 4, "--output", tmp_path)
    assert done.code == 0, done.err
    assert manifests(tmp_path)["source"]["cell"]["suite"] is None


def test_an_unknown_suite_is_answered_with_near_names(tta_bench):
    done = tta_bench("run", "--suite", "pocket-onlin")
    assert done.code == 2
    assert "unknown suite 'pocket-onlin'; did you mean 'pocket-online'" in done.err


def test_suites_are_listed_with_their_versions(tta_bench):
    done = tta_bench("list", "suites", "--csv")
    assert done.code == 0
    for name in suite_names():
        suite = load_suite(name)
        assert f"{suite.title}; version {suite.version}" in done.out


def test_what_is_given_wins_over_the_suite():
    given = {"methods": ["rmt"], "subset": "seeded-8", "batch_size": 16, "settings": ("lr=0.5",)}
    options, use = within("pocket-online", given)
    assert use == SuiteUse("pocket-online", load_suite("pocket-online").version, tuple(sorted(given)))
    assert options["subset"] == "seeded-8"
    assert "limit" not in options
    assert options["batch_size"] == 16
    assert options["presets"] == {"rmt": "pocket"}
    assert "presets" not in within("pocket-online", {"preset": "cifar10-c"})[0]


def test_settings_and_presets_follow_their_methods():
    options = {
        "methods": ("tent", "rmt"),
        "settings": ("tent.lr=1", "rmt.lr=2", "weight_decay=3"),
        "presets": {"rmt": "pocket", "tent": "cifar10-c"},
    }
    suite = Suite(name="two", version=1, title="Two methods", options=options)
    assert suite.options_for(None)["settings"] == options["settings"]
    chosen = suite.options_for(["tent"])
    assert chosen["settings"] == ("tent.lr=1", "weight_decay=3")
    assert chosen["presets"] == {"tent": "cifar10-c"}


def test_later_options_win_and_synonyms_replace_each_other():
    assert merged([{"limit": 9, "preset": "a"}, {"subset": "full"}, {"presets": {"tent": "b"}}]) == {
        "subset": "full",
        "presets": {"tent": "b"},
    }
    with pytest.raises(BadInputError, match="say the same thing"):
        merged([{"limit": 9, "subset": "full"}])


def test_presets_of_single_methods_stand_beside_the_common_one(tta_bench, tmp_path):
    cells = plan(Request(("tent", "rmt"), ("pocket",), preset="cifar10-c", presets={"rmt": "pocket"}))
    assert {cell.method: cell.preset for cell in cells} == {"tent": "cifar10-c", "rmt": "pocket"}
    assert {cell.method: cell.hyperparameters.get("samples") for cell in cells}["rmt"] == 512
    with pytest.raises(UnknownNameError, match="did you mean 'tent'"):
        plan(Request(("tent",), ("pocket",), presets={"tnet": "cifar10-c"}))
    config = tmp_path / "two.yaml"
    config.write_text("methods: [tent]\ndatasets: [pocket]\npresets: {tent: 3}\n")
    done = tta_bench("run", "--config", config)
    assert done.code == 2
    assert "option presets in" in done.err
    assert "must be a name, got 3" in done.err
