# SPDX-License-Identifier: Apache-2.0
"""Ray and submitit give the numbers of one process, also where a node or a job goes away; so does a store in S3."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tta_bench.errors import BadInputError
from tta_bench.records.store import Store

from .conftest import NUMBERS, manifests, planned, ran

HEAD, OTHER = "127.0.0.2", "127.0.0.3"
"""Addresses of this machine's own network; Ray takes 127.0.0.1 for that of another one."""
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


def by_name(output):
    """The numbers of each cell by its method and seed: settings such as the name of a file are not compared."""
    store = Store(str(output))
    found = {(one.cell.method, one.cell.seed): one for one in store.manifests()}
    return {name: store.read(one.id, NUMBERS).to_pydict() for name, one in found.items()}


@pytest.fixture(scope="module")
def s3():
    """An S3 service on this machine with one bucket; its URL, and the variables that name it."""
    pytest.importorskip("s3fs")
    boto3 = pytest.importorskip("boto3")
    ThreadedMotoServer = pytest.importorskip("moto.server").ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="runs")
        yield "s3://runs", variables
    server.stop()


@pytest.fixture(scope="module")
def cluster(s3):
    """The address of a Ray cluster of two nodes on this machine, one processor each."""
    with socket.socket() as free:
        free.bind((HEAD, 0))
        address = f"{HEAD}:{free.getsockname()[1]}"
    environment = os.environ | s3[1] | {
        "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0", "TTA_BENCH_FLUSH_SECONDS": "0",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    shared = ["--num-cpus=1", "--block", "--object-store-memory=80000000", "--disable-usage-stats"]
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        head = [
            "--head",
            f"--node-ip-address={HEAD}",
            f"--port={address.rpartition(':')[2]}",
            "--include-dashboard=false",
            f"--temp-dir={folder}",
        ]
        nodes = [_node([*head, *shared], environment)]
        try:
            _until(lambda: _answers(address))
            second = environment | {"TTA_BENCH_TEST_NODE": "second"}
            nodes.append(_node([f"--address={address}", f"--node-ip-address={OTHER}", *shared], second))
            yield address
        finally:
            for node in nodes:
                os.killpg(node.pid, signal.SIGKILL)
                node.wait()


def _node(arguments, environment):
    command = [*RAY, "start", *arguments]
    return subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _answers(address):
    host, _, port = address.partition(":")
    with socket.socket() as caller:
        return caller.connect_ex((host, int(port))) == 0


def _until(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_a_ray_cluster_that_loses_a_node_gives_the_numbers_of_one_process_in_s3(tmp_path, cluster, s3):
    ray = pytest.importorskip("ray")

    file = tmp_path / "falls"
    file.touch()
    settings = (f"falls.file={file}", "falls.pause=0.1")
    cells = planned(["falls"], seeds=(0, 1, 2, 3), settings=settings)
    ran(cells, tmp_path / "whole")
    with ray.init(cluster, _node_ip_address=HEAD, log_to_driver=False, configure_logging=False):
        _until(lambda: ray.cluster_resources().get("CPU") == 2)
        ended = ran(cells, s3[0] + "/ray", executor="ray")
        left = [node for node in ray.nodes() if node["Alive"]]
    assert {one.status for one in ended} == {"complete"}
    assert not file.exists()
    assert len(left) == 1
    assert by_name(s3[0] + "/ray") == by_name(tmp_path / "whole")


@pytest.mark.slow
def test_a_job_that_is_signalled_queues_itself_again_and_gives_the_numbers_of_one_process(tmp_path):
    pytest.importorskip("submitit")
    file = tmp_path / "preempted"
    file.touch()
    settings = (f"preempted.file={file}",)
    cells = planned(["preempted", "dice"], settings=settings)
    ended = ran(
        cells, tmp_path / "runs", executor="slurm",
        slurm=("cluster=local", f"folder={tmp_path / 'jobs'}", "timeout_min=20"),
    )  # fmt: skip
    assert [one.status for one in ended] == ["complete", "complete"]
    assert not file.exists()
    logs = "".join(path.read_text() for path in tmp_path.glob("jobs/*_log.err"))
    assert logs.count("Caught signal SIGUSR2") == 1
    assert manifests(tmp_path / "runs")["preempted"].outcome.computed == 12
    ran(cells, tmp_path / "whole")
    assert by_name(tmp_path / "runs") == by_name(tmp_path / "whole")
    assert not [path for path in (tmp_path / "runs").rglob("*") if "pkl" in path.name]


def test_a_store_in_s3_holds_resumes_and_puts_shards_together(tmp_path, s3, undisturbed):
    cells = planned(["walk", "dice"], shifts=("pocket", "pocket-sketch"))
    ended = ran(cells, s3[0] + "/one")
    assert {one.status for one in ended} == {"complete"}
    store = Store(s3[0] + "/one")
    assert {one.id: store.read(one.id, NUMBERS).to_pydict() for one in store.manifests()} == undisturbed
    assert {one.status for one in ran(cells, s3[0] + "/one")} == {"reused"}


@pytest.mark.parametrize(
    ("controls", "said"),
    [
        (
            {"executor": "ray", "ray_address": "127.0.0.1:9"},
            "ray_address expects a Ray cluster that can be reached",
        ),
        ({"executor": "slurm", "slurm": ("gpus",)}, "slurm must be like slurm_partition=gpu"),
        ({"executor": "slurm", "slurm": ("cluster=nowhere",)}, "slurm expects parameters of submitit"),
    ],
)
def test_what_a_cluster_cannot_do_is_one_sentence(tmp_path, monkeypatch, controls, said):
    pytest.importorskip("submitit")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError, match=said):
        ran(planned(["walk"]), tmp_path / "runs", **controls)


def test_an_extra_that_is_missing_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadInputError, match=r'pip install "tta-bench\[ray\]"'):
        ran(planned(["walk"]), tmp_path / "runs", executor="ray")
    assert not list(Path(tmp_path).glob("runs/cells/*"))
