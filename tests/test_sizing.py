"""docs/cluster.md says what the memory plan says, and its files are what Slurm and Kubernetes read."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


def test_every_row_of_the_sizing_tables_is_the_memory_plans():
    told = subprocess.run([sys.executable, ROOT / "bench" / "sizing.py"], capture_output=True, text=True, check=True)
    rows = [line for line in told.stdout.splitlines() if line.startswith("|")]
    page = (DOCS / "cluster.md").read_text().splitlines()
    assert len(rows) == 6 + 6 + 7 and [row for row in rows if row not in page] == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_slurm_script_is_one(tmp_path):
    script = DOCS / "cluster" / "spillover.slurm"
    subprocess.run(["bash", "-n", script], check=True)
    # With stand-ins for Slurm's and Ray's commands it starts a head, the other nodes, and the experiment on the head.
    waits = 'case "$*" in *"spillover run"*) until [ "$(wc -l < calls)" = 3 ]; do :; done;; esac'
    stands = {"scontrol": "printf 'a\\nb\\nc\\n'", "srun": f'echo "$@" >> calls; {waits}', "timeout": "true"}
    for name, does in stands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{does}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_NODELIST": "a,b,c"}
    subprocess.run(["bash", script, "figure4", "/shared/lab"], cwd=tmp_path, env=environment, check=True)
    calls = sorted((tmp_path / "calls").read_text().splitlines())
    assert len(calls) == 3
    assert any("ray start --head --port=6379" in call and "--nodelist=a" in call for call in calls)
    assert any("ray start --address=a:6379" in call and "--nodes=2" in call and "--exclude=a" in call for call in calls)
    assert any("spillover run figure4 --lab /shared/lab --cluster a:6379" in call for call in calls)


def test_the_kubernetes_file_runs_a_shipped_experiment_on_cards():
    job = yaml.safe_load((DOCS / "cluster" / "spillover.yaml").read_text())
    assert job["kind"] == "RayJob" and "--cluster auto" in job["spec"]["entrypoint"]
    name = job["spec"]["entrypoint"].split()[2]
    assert (ROOT / "src" / "spillover" / "experiments" / f"{name}.yaml").is_file()
    cluster = job["spec"]["rayClusterSpec"]
    (ray,) = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("ray==")]
    assert cluster["rayVersion"] == ray.removeprefix("ray==")
    (worker,) = cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
