"""On a real Slurm: a private cluster of one node on the loopback address, where it is installed."""

import os
import shutil
import socket
import subprocess
import sys
import time

import pytest

from olmo_mixlaw.cli import app as cli
from olmo_mixlaw.runs import RunTable

DAEMONS = ("slurmctld", "slurmd", "munged")
CONFIG = """
ClusterName=private
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={port1}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def slurm_is_here():
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin"
    return (
        hasattr(os, "geteuid")
        and os.geteuid() == 0
        and all(shutil.which(name, path=path) for name in (*DAEMONS, "sbatch", "squeue"))
    )


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not slurm_is_here(), reason="needs root and the Slurm daemons"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Starts munge and both Slurm daemons with files and ports of their own; ends them after."""
    folder = tmp_path_factory.mktemp("slurm")
    os.chmod(folder, 0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    host = socket.gethostname().split(".")[0]
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(host=host, port=port, port1=port + 1, folder=folder))
    environment = {
        **os.environ,
        "SLURM_CONF": str(config),
        "PATH": os.environ["PATH"] + ":/usr/sbin:/usr/bin",
    }
    commands = [
        [
            "munged",
            "--foreground",
            "--force",
            f"--socket={folder}/munge.socket",
            f"--key-file={key}",
            f"--pid-file={folder}/munge.pid",
            f"--log-file={folder}/munge.log",
            f"--seed-file={folder}/munge.seed",
        ],
        ["slurmctld", "-D"],
        ["slurmd", "-D"],
    ]
    daemons = []
    try:
        for command in commands:
            with open(folder / f"{command[0]}.out", "w") as log:
                daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            time.sleep(1)
        deadline = time.monotonic() + 30
        while (
            "idle"
            not in subprocess.run(
                ["sinfo", "--noheader", "--format=%T"],
                env=environment,
                capture_output=True,
                text=True,
            ).stdout
        ):
            assert time.monotonic() < deadline, (folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.5)
        yield environment
    finally:
        # Jobs first: what waits for a controller that is gone would wait for ever.
        subprocess.run(["scancel", "--me"], env=environment, check=False)
        deadline = time.monotonic() + 20
        while (
            time.monotonic() < deadline
            and subprocess.run(
                ["squeue", "--noheader", "--me"], env=environment, capture_output=True
            ).stdout
        ):
            time.sleep(0.5)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(20)


def test_study_runs_as_jobs_of_a_cluster(cluster, study_file, tmp_path):
    path = study_file(
        [
            ("workers: 2", "workers: 2\nslurm: {minutes: 10, memory_gb: 1.5}"),
            ("sizes: [w16, w32]", "sizes: [w16]"),
            ("[no_mixture, transfer]", "[no_mixture]"),
            ("size: w64", "size: w16"),
        ]
    )
    command = [sys.executable, "-m", "olmo_mixlaw", "study", "run", str(path)]
    done = subprocess.run(command, env=cluster, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "out").glob("runs/*/job.json"))) == 3
    assert RunTable.load(tmp_path / "out" / "table").losses["run_id"].nunique() == 3


def test_absent_cluster_is_one_clear_line(study_file, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", "")
    path = study_file([("workers: 2", "workers: 2\nslurm: {}")])
    assert cli.run(cli.app, ["study", "run", str(path)]) == 2
    assert capsys.readouterr().err == "error: slurm: sbatch is not found on this machine\n"
    assert not (tmp_path / "out").exists()
