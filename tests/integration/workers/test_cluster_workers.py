"""The workers of a real Dask cluster: calls and messages, their loss, and who is turned away."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from async_loader.errors import ClusterError, WorkerLostError, WorkloadError
from async_loader.workers import Arrived, Link
from async_loader.workers.cluster import DaskWorkers, joined
from async_loader.workers.shipping import Shipped
from tests.dask_cluster import ROOT, DaskCluster, dask_cluster
from tests.integration.workers.test_workers import echo, raising, who

SECRET = "s3cret-of-the-database"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskCluster]:
    with dask_cluster(tmp_path) as running:
        yield running


def noted(link: Link, path: str, secret: str) -> str:
    """Note that this was begun, say so, and wait for the end."""
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return f"{echo(link)}"


def boom(link: Link, secret: str) -> None:
    raise ValueError("boom")


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_calls_messages_and_the_loss_of_a_worker(
    cluster: DaskCluster, tmp_path: Path
) -> None:
    """
    A worker is killed, and another started at its address, to which Dask gives its task.

    What was begun stays lost, and is begun nowhere else; the other worker goes on.
    """
    heard: list[tuple[int, Arrived]] = []
    begun = tmp_path / "begun"
    first, second = cluster.worker(), cluster.worker()
    async with joined(cluster.address) as found:
        addresses = [member.address for member in found.members]
        victim = next(p for p in (first, second) if cluster.address_of(p) == addresses[0])
        async with DaskWorkers(found, lambda *what: heard.append(what)) as workers:
            assert workers.names == tuple(f"worker {address}" for address in addresses)
            calls = [workers.submit(index, who, "a") for index in (0, 1)]
            answers = [await asyncio.wrap_future(call) for call in calls]
            assert [answer[0] for answer in answers] == list(workers.names)
            assert {answer[1] for answer in answers} == {first.pid, second.pid}
            with pytest.raises(KeyError, match=addresses[1]):
                await asyncio.wrap_future(workers.submit(1, raising))
            with pytest.raises(ValueError, match="boom"):
                await asyncio.wrap_future(workers.submit(1, boom, SECRET))

            lost = workers.submit(0, noted, str(begun), SECRET)
            kept = workers.submit(1, echo)
            for number in range(20):
                for index in (0, 1):
                    workers.tell(index, {"number": number, "text": "é" * 100})
            await until(lambda: len(heard) == 42)
            for index in (0, 1):
                mine = [message for worker, message in heard if worker == index]
                assert mine[0] == {"ready": True}
                assert [message["echo"]["number"] for message in mine[1:]] == [*range(20)]

            victim.kill()
            victim.wait()
            with pytest.raises(WorkerLostError, match=f"^{workers.names[0]} ") as error:
                await asyncio.wait_for(asyncio.wrap_future(lost), 20)
            assert error.value.worker == workers.names[0]
            port = addresses[0].rpartition(":")[2]
            await asyncio.to_thread(cluster.worker, ROOT, "--worker-port", port)
            workers.tell(0, {"end": True})  # goes nowhere
            with pytest.raises(WorkerLostError):
                await asyncio.wrap_future(workers.submit(0, who))
            workers.tell(1, {"end": True})
            assert await asyncio.wrap_future(kept) == 20
    assert begun.read_text() == f"{victim.pid}\n"
    assert SECRET not in cluster.logs


@pytest.mark.soak
async def test_a_process_in_the_place_of_another_refuses_its_call(
    cluster: DaskCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker is back before anybody looks, and Dask has it begin the call again."""
    monkeypatch.setattr("async_loader.workers.cluster.workers._LOOK", 3600)
    begun = tmp_path / "begun"
    worker = cluster.worker()
    async with (
        joined(cluster.address) as found,
        DaskWorkers(found, lambda index, message: None) as workers,
    ):
        call = workers.submit(0, noted, str(begun), SECRET)
        await until(begun.exists)
        worker.kill()
        worker.wait()
        port = found.members[0].address.rpartition(":")[2]
        await asyncio.to_thread(cluster.worker, ROOT, "--worker-port", port)
        with pytest.raises(WorkerLostError, match="was started again"):
            await asyncio.wait_for(asyncio.wrap_future(call), 20)
    assert begun.read_text() == f"{worker.pid}\n"


@pytest.mark.soak
async def test_a_coordinator_that_has_gone_is_noticed(cluster: DaskCluster, tmp_path: Path) -> None:
    cluster.worker()
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    async with joined(cluster.address) as found:
        workers = DaskWorkers(found, lambda index, message: None)
        await workers.__aenter__()
        workers.submit(0, lingering, str(begun), str(ended))
        await until(begun.exists)
        assert workers._watching is not None
        workers._watching.cancel()
    await until(ended.exists)  # the client is closed; nobody has said anything


def lingering(link: Link, begun: str, ended: str) -> None:
    Path(begun).touch()
    echo(link)
    Path(ended).touch()


@pytest.mark.soak
async def test_a_lost_scheduler_loses_all(
    cluster: DaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("async_loader.workers.cluster.workers._SCHEDULER_PATIENCE", 2.0)
    cluster.worker()
    async with (
        joined(cluster.address) as found,
        DaskWorkers(found, lambda index, message: None) as workers,
    ):
        call = workers.submit(0, echo)
        cluster._processes[0].kill()
        with pytest.raises(WorkerLostError, match=r"scheduler does not answer|lost by Dask"):
            await asyncio.wait_for(asyncio.wrap_future(call), 40)


@pytest.mark.soak
async def test_who_has_not_this_package_is_turned_away(
    cluster: DaskCluster, tmp_path: Path
) -> None:
    cluster.worker()
    without = cluster.worker("")
    with pytest.raises(ClusterError) as error:
        async with joined(cluster.address):
            pass
    assert str(error.value) == (
        f"worker {cluster.address_of(without)} has no async_loader: "
        "install the same on all machines"
    )
    without.kill()
    without.wait()
    for number, expected in (
        ("0.0.7", "async_loader 0.0.7, this is "), (None, "another build of async_loader "),
    ):  # fmt: skip
        other = tmp_path / f"other{number}"
        shutil.copytree(ROOT / "async_loader", other / "async_loader")
        with (other / "async_loader" / "clock.py").open("a") as file:
            file.write("# newer\n")
        if number is not None:
            info = other / f"async_loader-{number}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Name: async_loader\nVersion: {number}\n")
            path = str(other)
        else:
            path = f"{other}{os.pathsep}{ROOT}"  # the same metadata
        worker = cluster.worker(path)
        with pytest.raises(ClusterError) as error:
            async with joined(cluster.address):
                pass
        assert str(error.value).startswith(f"worker {cluster.address_of(worker)} has {expected}")
        worker.kill()
        worker.wait()


@pytest.mark.soak
async def test_a_scheduler_without_the_package(tmp_path: Path) -> None:
    folder = tmp_path / "dask"
    folder.mkdir()
    with dask_cluster(folder, path="") as cluster:
        cluster.worker()
        with pytest.raises(ClusterError, match=r"^the scheduler tcp://\S+ has no async_loader"):
            async with joined(cluster.address):
                pass


@pytest.mark.soak
async def test_what_cannot_be_imported_names_the_worker(
    cluster: DaskCluster, tmp_path: Path
) -> None:
    """A module must be there; a file is sent, and its changed text is what runs the next time."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "nearby.py").write_text("")
    cluster.worker()
    async with joined(cluster.address) as found:
        name = found.members[0].name
        with pytest.raises(WorkloadError, match=f"^{name}: .*No module named 'nowhere'"):
            async with DaskWorkers(found, lambda *what: None, shipped=Shipped("nowhere")):
                pass
        for text in ("first", "second"):
            script = here / "sent.py"
            script.write_text(f"TEXT = {text!r}\n")
            shipped = Shipped.of(str(script))
            script.unlink()  # as on another machine
            async with DaskWorkers(found, lambda *what: None, shipped=shipped) as workers:
                read = await asyncio.wrap_future(workers.submit(0, reading, str(script)))
            assert read == (text, text)


def reading(link: Link, place: str) -> tuple[str, str]:
    """Return what a module says, found by its path and by its name."""
    from async_loader.runtime.user_modules import load_module

    by_path = load_module(place).TEXT
    import sent  # type: ignore[import-not-found]  # it was sent

    return by_path, sent.TEXT


AHEAD = """
import time

if not hasattr(time, "real"):  # Dask executes it twice
    time.real = time.time_ns
    time.time_ns = lambda: time.real() + 5_000_000_000
"""


@pytest.mark.soak
async def test_another_clock_is_told(cluster: DaskCluster, tmp_path: Path) -> None:
    """A worker whose clock is five seconds ahead; another's is ours."""
    (tmp_path / "ahead.py").write_text(AHEAD)
    ahead = cluster.worker(ROOT, "--preload", str(tmp_path / "ahead.py"))
    cluster.worker()
    async with joined(cluster.address) as found:
        offsets = {member.address: member.offset_ns for member in found.members}
    its = offsets.pop(cluster.address_of(ahead))
    assert abs(its - 5e9) < 0.1e9
    assert abs(next(iter(offsets.values()))) < 0.1e9


@pytest.mark.soak
async def test_one_here_listens_on_the_loopback_and_leaves_nothing() -> None:
    async with joined("local:3") as found:
        assert len(found.members) == 3
        family = [psutil.Process(), *psutil.Process().children(recursive=True)]
        listening = [
            connection.laddr.ip
            for process in family
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert set(listening) == {"127.0.0.1"}
    _, alive = psutil.wait_procs(
        [p for p in family[1:] if "spawn_main" in " ".join(_command_of(p))], timeout=10
    )
    assert alive == []


def _command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


async def test_nobody_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("async_loader.workers.cluster.joining.CONNECT_TIMEOUT", 0.5)
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9 "):
        async with joined("tcp://127.0.0.1:9"):
            pass
