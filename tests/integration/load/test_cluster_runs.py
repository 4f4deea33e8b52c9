"""Runs and jobs on a real Dask cluster: the same operations, and an account when a worker dies."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from async_loader.errors import ConfigurationError
from async_loader.jobs import status
from tests.acceptance.conftest import environment
from tests.acceptance.test_job_processes import ROWS, SLOW, at_work
from tests.counting import fill, tally
from tests.dask_cluster import DaskCluster, dask_cluster
from tests.integration.load.test_split_runs import LEDGER, Run, counts, reconcile, rows

SECRET = "s3cret-of-the-database"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskCluster]:
    folder = tmp_path / "dask"
    folder.mkdir()
    with dask_cluster(folder, **SLOW) as running:
        yield running


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    """The path of a workload whose writes leave a row."""
    path = tmp_path / "ledger.py"
    path.write_text(LEDGER)
    return str(path)


@pytest.fixture
def secret_url(database_url: str) -> str:
    """A URL with a password; the server asks for none."""
    url = make_url(database_url).set(password=SECRET)
    return url.render_as_string(hide_password=False)


async def test_a_run_on_a_cluster_is_the_run_of_one_process(
    cluster: DaskCluster, ledger: str, secret_url: str, engine: AsyncEngine
) -> None:
    pids = {cluster.worker().pid, cluster.worker().pid}
    results = []
    for where in ({}, {"cluster": cluster.address}):
        run = Run(
            workload=f"{ledger}:workload", database_url=secret_url, ops=301, concurrency=9,
            seed=3, warmup=10, **where,
        )  # fmt: skip
        results.append(await run.result())
    one, split = results
    assert split.outcome == "done"
    assert counts(split) == counts(one)
    written = sorted(await rows(engine, split, "index, draw"))
    assert written == sorted(await rows(engine, one, "index, draw"))
    assert {pid for (pid,) in await rows(engine, split, "pid")} == pids
    assert [shard.name for shard in split.shards] == [
        f"worker {address}" for address in sorted(cluster.addresses)
    ]
    assert sum(shard.completed for shard in split.shards) == 301
    assert SECRET not in cluster.logs
    with pytest.raises(ConfigurationError, match="cannot share a concurrency of 1"):
        await Run(workload="noop", ops=9, concurrency=1, cluster=cluster.address).result()
    with pytest.raises(ConfigurationError, match="`cluster` needs `database_url`"):
        await Run(ops=9, cluster=cluster.address).result()


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("policy", ["stop", "continue"])
async def test_killing_a_worker_loses_no_account(
    cluster: DaskCluster, ledger: str, secret_url: str, engine: AsyncEngine, policy: str
) -> None:
    rng = random.Random(policy)
    processes = [cluster.worker() for _ in range(3)]
    for _ in range(5):
        run = Run(
            workload=f"{ledger}:workload", database_url=secret_url, cluster=cluster.address,
            seed=rng.randrange(10**6), concurrency=9, duration=4.0, on_worker_loss=policy,
        )  # fmt: skip
        running = asyncio.create_task(run.result())
        while not run.snapshots:
            assert not running.done()
            await asyncio.sleep(0.01)
        await asyncio.sleep(rng.uniform(0, 2))
        victim = processes.pop(rng.randrange(3))
        victim.send_signal(signal.SIGKILL)
        await asyncio.to_thread(victim.wait)
        processes.append(await asyncio.to_thread(cluster.worker))  # it takes nothing over
        result = await running
        written = await rows(engine, result, "index, pid")
        reconcile(result, written)
        assert processes[-1].pid not in {pid for _, pid in written}
        assert result.outcome == ("lost" if policy == "stop" else "done")
        (lost,) = [shard for shard in result.shards if shard.lost]
        assert run.notes[0].startswith(f"{lost.name} has left the cluster")
        assert lost.indeterminate == result.indeterminate
    assert SECRET not in cluster.logs


@pytest.mark.soak
async def test_a_job_on_a_cluster_survives_its_workers(
    cluster: DaskCluster, secret_url: str, engine: AsyncEngine
) -> None:
    await fill(engine, ROWS)
    first, _ = cluster.worker(), cluster.worker()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "async_loader", "job", "run", "tests.counting:job",
            "--cluster", cluster.address, "--database-url", secret_url, "--progress", "none",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**SLOW),
    )  # fmt: skip
    with process:
        assert await at_work(engine, process, 2)
        name = f"worker {cluster.address_of(first)}"
        first.kill()
        output, errors = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 0, errors
    assert errors == f"{name} has left the cluster: what it had begun is the others'\n"
    assert output.startswith("done  counting: 6,000 of 6,000 rows")
    assert await tally(engine) == {1: ROWS}
    assert SECRET not in cluster.logs


@pytest.mark.soak
async def test_ctrl_c_pauses_a_job_on_a_cluster(
    cluster: DaskCluster, secret_url: str, engine: AsyncEngine
) -> None:
    await fill(engine, ROWS)
    process = subprocess.Popen(
        [
            sys.executable, "-m", "async_loader", "job", "run", "tests.counting:job",
            "--cluster", "local:2", "--database-url", secret_url, "--progress", "none",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**SLOW),
        process_group=0,
    )  # fmt: skip
    with process:
        assert await at_work(engine, process, 2)
        os.killpg(process.pid, signal.SIGINT)
        output, errors = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 105, errors
    assert errors == ""
    assert re.search(r"paused by .*: `job run` goes on with it", output)
    paused = await status(engine, "counting")
    assert (paused.state, paused.rows_read) == ("paused", (await tally(engine)).get(1, 0))


def command(*argv: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m async_loader`."""
    return subprocess.run(
        [sys.executable, "-m", "async_loader", *argv],
        check=False,
        capture_output=True,
        text=True,
        env=environment(**extra),
        timeout=60,
    )


@pytest.mark.soak
def test_tls_is_dasks_own(tmp_path: Path) -> None:
    """Without a certificate nobody is let in, and says so in one line."""
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-out", certificate, "-keyout", key,
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    tls = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": certificate}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        tls[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] = certificate
        tls[f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY"] = key
    folder = tmp_path / "dask"
    folder.mkdir()
    with dask_cluster(folder, "tls", **tls) as cluster:
        cluster.worker()
        assert cluster.address.startswith("tls://")
        argv = ["--workload", "noop", "--ops", "1000", "--progress", "none"]
        done = command(*argv, "--cluster", cluster.address, **tls)
        assert done.returncode == 0, done.stderr
        for address, code in ((cluster.address, 104), (cluster.address.replace("tls", "tcp"), 114)):
            refused = command(*argv, "--cluster", address)
            assert (refused.returncode, len(refused.stderr.splitlines())) == (code, 1), refused
            assert address in refused.stderr
