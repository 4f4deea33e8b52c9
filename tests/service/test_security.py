"""Who may ask, and for how much."""

from __future__ import annotations

import asyncio
import gc
import hmac
import json
import logging
import random
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from async_loader.errors import ConfigurationError
from async_loader.service import entrance, protocol
from async_loader.service.guard import MOST_BYTES
from async_loader.service.tokens import Tokens, hashed, new_token
from async_loader.settings.sources import load
from tests.unit.runs import made_up_run

from .conftest import Service, Serving

TOKEN = new_token()
KNOWN = f"ci={hashed(TOKEN)}"
RUN = {"scenario": "nothing", "target": "one"}


def port_of(service: Service) -> int:
    port = service.client.base_url.port
    assert port is not None
    return port


async def ask(
    service: Service, method: str, path: str, headers: Mapping[str, str], **more: Any
) -> httpx.Response:
    """Ask without what the fixture's client sends by itself."""
    async with httpx.AsyncClient(base_url=service.client.base_url) as client:
        return await client.request(method, path, headers=headers, **more)


def is_problem(answer: httpx.Response, status: int) -> bool:
    media = answer.headers["content-type"]
    return (answer.status_code, media, answer.json()["status"]) == (
        status,
        "application/problem+json",
        status,
    )


async def test_another_sites_page_reads_nothing(service: Service) -> None:
    for headers, allowed in (
        ({}, True),
        ({"Host": "attacker.example"}, False),
        ({"Host": "127.0.0.1"}, False),  # of another port
        ({"Origin": "http://attacker.example"}, False),
        ({"Origin": "null"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, True),  # a link
        ({"Sec-Fetch-Site": "same-origin"}, True),
    ):
        answer = await ask(service, "GET", "/api/runs", headers)
        assert answer.status_code in ((200,) if allowed else (403, 421)), (headers, answer.text)
        assert "access-control-allow-origin" not in answer.headers


async def test_only_a_page_of_ours_changes_anything(service: Service) -> None:
    port = str(port_of(service))
    for headers, allowed in (
        ({}, False),  # what a form on any page can send
        ({"X-Async-Loader": "1"}, True),
        ({"X-Async-Loader": "1", "Origin": "http://127.0.0.1:{port}"}, True),
        ({"X-Async-Loader": "1", "Origin": "http://attacker.example"}, False),
        ({"X-Async-Loader": "1", "Sec-Fetch-Site": "cross-site"}, False),
        (
            {
                "X-Async-Loader": "1",
                "Sec-Fetch-Site": "cross-site",
                "Sec-Fetch-Mode": "navigate",
            },
            False,
        ),
        ({"Origin": "http://127.0.0.1:{port}"}, False),
    ):
        before = (await service.client.get("/api/runs")).json()["runs"]
        sent = {name: value.replace("{port}", port) for name, value in headers.items()}
        answer = await ask(service, "POST", "/api/runs", sent, json=RUN)
        assert answer.status_code == (201 if allowed else 403), (headers, answer.text)
        listed = (await service.client.get("/api/runs")).json()["runs"]
        assert len(listed) == len(before) + int(allowed)
        if allowed:
            await service.ended(listed[0]["id"])


async def test_no_preflight_is_answered(service: Service) -> None:
    asked = {"Origin": "http://attacker.example", "Access-Control-Request-Method": "POST"}
    answer = await ask(service, "OPTIONS", "/api/runs", asked)
    assert answer.status_code == 403


async def test_tokens(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(token=KNOWN) as service:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        for path in ("/api/runs", "/api/audit", "/metrics", "/api/openapi.json"):
            nobody = await ask(service, "GET", path, {})
            assert is_problem(nobody, 401)
            assert nobody.headers["www-authenticate"].startswith("Bearer")
            assert (await ask(service, "GET", path, bearer)).status_code == 200
        wrong = await ask(service, "GET", "/api/runs", {"Authorization": "Bearer al_wrong"})
        assert is_problem(wrong, 401)
        in_the_url = await ask(service, "GET", f"/api/runs?token={TOKEN}", {})
        assert in_the_url.status_code == 401
        for path in ("/", "/healthz", "/readyz"):
            assert (await ask(service, "GET", path, {})).status_code == 200
        # The proof of a page is none of who asks; a token needs no proof.
        proof = {"X-Async-Loader": "1"}
        assert is_problem(await ask(service, "POST", "/api/runs", proof, json=RUN), 401)
        started = await ask(service, "POST", "/api/runs", bearer, json=RUN)
        assert started.json()["started_by"] == "ci (127.0.0.1)"
    for logger, _, line in caplog.record_tuples:  # but for what this test itself asked for
        assert logger.startswith("http") or TOKEN not in line, logger


def test_every_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {f"user{n}": hashed(new_token()) for n in range(3)}
    compared: list[str] = []

    def compare(given: str, other: str) -> bool:
        compared.append(other)
        return given == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    tokens = Tokens({"first": hashed(TOKEN)} | known)
    assert tokens.owner_of(TOKEN) == "first"  # and goes on looking
    assert tokens.owner_of("al_wrong") is None
    assert compared == [hashed(TOKEN), *known.values()] * 2


async def test_a_page_logs_in_and_out(serving: Serving) -> None:
    async with serving(token=KNOWN) as service:
        client = service.client
        assert (await client.get("/api/session")).json() == {"who": None, "needs_token": True}
        assert is_problem(await client.post("/api/session", json={"token": "al_wrong"}), 401)
        login = await client.post("/api/session", json={"token": TOKEN})
        assert login.json()["who"] == "ci"
        cookie = login.headers["set-cookie"]
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert TOKEN not in cookie
        assert (await client.post("/api/runs", json=RUN)).status_code == 201
        del client.headers["X-Async-Loader"]  # a cookie alone is no proof
        assert is_problem(await client.post("/api/runs", json=RUN), 403)
        client.headers["X-Async-Loader"] = "1"
        session = dict(client.cookies)
        await client.post("/api/session/end")
        client.cookies.update(session)  # kept by somebody
        assert (await client.get("/api/runs")).status_code == 401


async def test_who_did_what_is_written_down(serving: Serving) -> None:
    async with serving(token=KNOWN) as service:
        service.client.headers["Authorization"] = f"Bearer {TOKEN}"
        number = await service.start("endless")
        await service.client.post(f"/api/runs/{number}/stop")
        await service.ended(number)
        entries = (await service.client.get("/api/audit")).json()["entries"]
        told = [(entry["who"], entry["action"], entry["run"]) for entry in entries]
        assert told == [("ci (127.0.0.1)", "stop", number), ("ci (127.0.0.1)", "start", number)]


async def test_refused_tokens_are_counted_and_not_written_one_by_one(serving: Serving) -> None:
    async with serving(token=KNOWN) as service:
        login = [
            await service.client.post("/api/session", json={"token": f"al_{n}"}) for n in range(30)
        ]
        bearer = await ask(service, "GET", "/api/runs", {"Authorization": "Bearer al_wrong"})
        assert [answer.status_code for answer in login[:3]] == [401] * 3
        assert is_problem(login[-1], 429)
        assert is_problem(bearer, 429)  # of one address, however it is said
        assert int(login[-1].headers["retry-after"]) > 0
        known = {"Authorization": f"Bearer {TOKEN}"}  # no neighbour's guesses lock it out
        await service.desk.refusals.write()
        entries = (await ask(service, "GET", "/api/audit", known)).json()["entries"]
        refused = [each for each in entries if each["action"] == "login refused"]
        assert 1 <= len(refused) <= 2
        assert sum(int(each["detail"].split()[0]) for each in refused) == 31
        assert all("127.0.0.1" in each["detail"] for each in refused)


async def test_a_body_is_small_and_comes(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    large = b"x" * (MOST_BYTES + 1)
    answer = await service.client.post("/api/runs", content=large)
    assert is_problem(answer, 413)

    async def chunks() -> Any:
        yield large[: MOST_BYTES // 2]
        yield large

    assert is_problem(await service.client.post("/api/runs", content=chunks()), 413)
    monkeypatch.setattr("async_loader.service.guard.BODY_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(service))
    writer.write(
        b"POST /api/runs HTTP/1.1\r\nX-Async-Loader: 1\r\nContent-Length: 9\r\n"
        b"Host: 127.0.0.1:%d\r\n\r\n{" % port_of(service)
    )
    assert (await reader.readline()).split()[1] == b"408"
    writer.close()


async def test_who_asks_too_often_is_told_so(serving: Serving) -> None:
    async with serving(request_rate="5/s") as service:
        answers = [await service.client.get("/healthz") for _ in range(20)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert is_problem(refused[0], 429)
        assert refused[0].headers["retry-after"] == "1"


async def test_connections_and_watchers_are_limited(serving: Serving) -> None:
    async with serving(max_connections=3, max_watchers=1) as service:
        number = await service.start("endless")
        path = f"/api/runs/{number}/events"
        async with service.client.stream("GET", path) as watching:
            assert watching.status_code == 200
            assert is_problem(await service.client.get(path), 503)
            idle = [socket.create_connection(("127.0.0.1", port_of(service))) for _ in range(5)]
            cut = 0
            for connection in idle:
                connection.setblocking(False)
                cut += await is_cut(connection)
                connection.close()
            assert cut >= 3
        await service.client.post(f"/api/runs/{number}/stop")
        await service.ended(number)


async def test_silent_connections_hold_up_nobody(serving: Serving) -> None:
    async with serving(max_connections=20) as service:
        idle = [socket.create_connection(("127.0.0.1", port_of(service))) for _ in range(60)]
        for _ in range(3):
            async with httpx.AsyncClient(base_url=service.client.base_url) as client:
                assert (await client.get("/healthz")).status_code == 200
        for connection in idle:
            connection.close()


async def test_a_handshake_is_a_connection_and_ends(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = await certificate_in(tmp_path)
    async with serving(max_connections=20, tls_certificate=certificate, tls_key=key) as service:
        port = port_of(service)
        url = f"https://127.0.0.1:{port}"
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
        async with httpx.AsyncClient(base_url=url, verify=False) as client:
            assert (await client.get("/healthz")).status_code == 200
        for connection in idle:
            connection.close()
        monkeypatch.setattr(entrance, "HANDSHAKE", 0.2)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")  # no TLS
        with suppress(ConnectionResetError):
            await reader.read()
        writer.close()


async def certificate_in(folder: Path) -> tuple[Path, Path]:
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    making = await asyncio.create_subprocess_exec(
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        "-subj", "/CN=127.0.0.1", "-keyout", str(key), "-out", str(certificate),
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert await making.wait() == 0
    return certificate, key


async def is_cut(connection: socket.socket) -> bool:
    try:
        async with asyncio.timeout(0.3):
            return not await asyncio.get_running_loop().sock_recv(connection, 1)
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


async def test_a_connection_is_not_held_by_silence(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "REQUEST", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(service))
    with suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(service))
    for byte in b"GET /healthz HTTP/1.1\r\nHost: x":  # never its end
        with suppress(ConnectionResetError):
            writer.write(bytes([byte]))
    with suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()


async def test_a_connection_is_not_held_by_never_reading(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "STALLED", 0.2)
    port = port_of(service)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port))
    connection.setblocking(False)
    asked = b"GET /page/uPlot.iife.min.js HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        await ask_for_ever(connection, asked)
    connection.close()


async def ask_for_ever(connection: socket.socket, asked: bytes) -> None:
    """Ask and never read: the answers fill whatever the kernel has for them."""
    async with asyncio.timeout(30):
        while True:
            await asyncio.get_running_loop().sock_sendall(connection, asked)
            await asyncio.sleep(0.001)


async def test_a_connection_that_is_gone_leaves_nothing(service: Service) -> None:
    """Not even to the garbage collector, which looks seldom: 100 watchers were 3 MB to it."""

    def connections() -> int:
        return sum(isinstance(each, protocol.GuardedProtocol) for each in gc.get_objects())

    number = await service.start("endless")
    gc.collect()
    gc.disable()
    try:
        before = connections()
        for _ in range(3):
            async with service.client.stream("GET", f"/api/runs/{number}/events") as watching:
                assert await anext(watching.aiter_lines())
        async with asyncio.timeout(10):
            while connections() > before:
                await asyncio.sleep(0.02)
    finally:
        gc.enable()
    await service.client.post(f"/api/runs/{number}/stop")
    await service.ended(number)


async def test_every_answer_has_a_strict_policy(service: Service) -> None:
    for path in ("/", "/api/runs", "/api/nothing", "/healthz"):
        headers = (await service.client.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "unsafe" not in policy


async def test_what_is_no_request_is_answered_with_a_problem(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(service))
    writer.write(b"GET /api/runs HTTP/1.1 nonsense\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    first, *headers = head.split(b"\r\n")
    assert first == b"HTTP/1.1 400 Bad Request"
    assert {b"content-type: application/problem+json", b"connection: close"} <= set(headers)
    assert any(b"content-security-policy: default-src 'none'" in line for line in headers)
    assert json.loads(body)["status"] == 400


async def test_a_report_is_in_a_sandbox(service: Service) -> None:
    number = await service.have(made_up_run(random.Random(1)))
    page = await service.client.get(f"/api/runs/{number}/report.html")
    policy = page.headers["content-security-policy"]
    assert "sandbox allow-scripts" in policy
    assert "script-src 'sha256-" in policy
    assert "unsafe" not in policy


async def test_bounds_hold_and_names_are_names(service: Service) -> None:
    async def refused(status: int, **body: Any) -> str:
        answer = await service.client.post("/api/runs", json=RUN | body)
        assert is_problem(answer, status), answer.text
        return answer.text

    for field, value in (
        ("ops", 10**9), ("duration", 1e6), ("concurrency", 10**6), ("rate", 1e9)
    ):  # fmt: skip
        assert field in await refused(422, overrides={field: value})
    await refused(422, overrides={"workload": "os:system"})
    await refused(422, overrides={"database_url": "sqlite:///x"})
    await refused(422, overrides={"ops": 1, "duration": 1})
    await refused(422, overrides={"threshold": ["errors:rate<1"]})
    await refused(422, scenario="../../etc/passwd")
    await refused(422, target="postgresql://user:secret@host/db")
    await refused(404, target="elsewhere")
    await refused(404, scenario="unknown")
    listed = await service.client.get("/api/runs")
    assert listed.json()["runs"] == []


async def test_nothing_tells_a_password(serving: Serving, database_url: str) -> None:
    url = database_url.replace("postgres@", "postgres:hunter2@")
    assert "hunter2" in url
    async with serving(target=f"one={url}") as service:
        run = await service.ended(await service.start("mixed"))
        assert run["state"] == "passed"
        paths = ["/api/scenarios", "/api/targets", "/api/runs", "/api/audit", "/metrics"]
        paths += [f"/api/runs/1{rest}" for rest in ("", "/report.json", "/report.html", "/charts")]
        for path in paths:
            assert "hunter2" not in (await service.client.get(path)).text, path


@pytest.mark.parametrize(
    "argv",
    [
        ["--host", "0.0.0.0"],
        ["--host", "0.0.0.0", "--allow-remote"],
        ["--host", "192.0.2.1", "--token", KNOWN],
        ["--host", "::", "--allow-remote"],
    ],
)
def test_other_machines_need_a_token_and_the_will(argv: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="--allow-remote and a --token"):
        load(["serve", "--config-dir", ".", *argv])
    load(["serve", "--host", "0.0.0.0", "--allow-remote", "--token", KNOWN])


def test_a_mistake_in_a_target_does_not_show_it() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(["serve", "--target", "postgresql://user:hunter2@host/db"])
    assert "hunter2" not in str(caught.value)
