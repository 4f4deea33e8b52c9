"""What is said over HTTP of the machine that the service is on."""

from __future__ import annotations

from pathlib import Path

import pytest

from async_loader.service.path_redaction import discreet, without_folders

from .conftest import Serving

WORKLOAD = """
from async_loader import Workload

workload = Workload("falls")

@workload.operation("fall", kind="read")
async def fall() -> None:
    raise ValueError(f"cannot read {__file__}")
"""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot read /srv/load/base.json: No such file", "cannot read base.json: No such file"),
        ("no socket in /run/postgresql: is it up?", "no socket in postgresql: is it up?"),
        ("/srv/load/wl.py:workload", "wl.py:workload"),
        ("~/load/wl.py:workload", "wl.py:workload"),
        (
            'File "/v/lib/python3/site-packages/sqlalchemy/orm/session.py", line 3',
            'File "sqlalchemy/orm/session.py", line 3',
        ),
        ("postgresql://user@host:5432/database", "postgresql://user@host:5432/database"),
        ("at http://127.0.0.1:8642/api/runs", "at http://127.0.0.1:8642/api/runs"),
        ("op_duration{op:GET /items/{id}}:p(95)<5s", "op_duration{op:GET /items/{id}}:p(95)<5s"),
        ("in errors{op:/a/b/c}:▶x: wrong", "in errors{op:/a/b/c}:▶x: wrong"),
        ("PATCH /a/b/c of /srv/load/wl.py", "PATCH /a/b/c of wl.py"),
        ("200 operations/s, 1/2, a/b/c, wl.py", "200 operations/s, 1/2, a/b/c, wl.py"),
    ],
)
def test_of_a_path_its_last_part_is_told(text: str, shown: str) -> None:
    assert without_folders(text) == shown
    assert discreet({"a": [text, 1, None]}) == {"a": [shown, 1, None]}


def test_a_name_that_is_known_is_no_path() -> None:
    text = "operation '/shop/cart/add' of /srv/shop/cart.py: /shop/cart"
    names = ("/shop/cart", "/shop/cart/add")
    assert without_folders(text, names) == "operation '/shop/cart/add' of cart.py: /shop/cart"


ROUTES = """
from async_loader import Workload

workload = Workload("shop")

@workload.operation("GET /items/{id}", kind="read")
async def show() -> None: ...

@workload.operation("/orders/all/{id}", kind="read")
async def order() -> None:
    raise ValueError("/orders/all/{id} of " + __file__)
"""


async def test_names_of_operations_are_kept_everywhere(
    serving: Serving, scenarios: Path, tmp_path: Path
) -> None:
    code = tmp_path / "shop.py"
    code.write_text(ROUTES)
    holds, not_at_all = (
        "op_duration{op:GET /items/{id}}:count>0",
        "errors{op:/orders/all/{id}}:rate<1%",
    )
    (scenarios / "shop.toml").write_text(
        f'workload = "{code}:workload"\nops = 40\nmax_error_rate = 1.0\ngive_up = "1h"\n'
        f"threshold = {[holds, not_at_all]!r}\n"
    )
    async with serving(target=f"lite=sqlite:///{tmp_path}/data.sqlite") as service:
        run = await service.ended(await service.start("shop", "lite"))
        assert run["settings"]["threshold"] == [holds, not_at_all]
        assert run["state"] == "failed"
        assert [reason for reason in run["reasons"] if not_at_all in reason]
        junit = (await service.client.get(f"/api/runs/{run['id']}/report.xml")).text
        assert 'failures="1"' in junit  # as in the list: its own thresholds are found in it
        result = (await service.client.get(f"/api/runs/{run['id']}/report.json")).json()
        assert set(result["by_operation"]) >= {"GET /items/{id}", "/orders/all/{id}"}
        (error,) = result["errors"].values()
        assert "/orders/all/{id} of shop.py" in error["sample"]
        assert str(tmp_path) not in str(result)


async def test_no_answer_tells_a_folder(serving: Serving, scenarios: Path, tmp_path: Path) -> None:
    code = tmp_path / "falls.py"
    code.write_text(WORKLOAD)
    common = f'ops = 3\nbaseline = ["{tmp_path}/none.json"]\n'
    (scenarios / "falls.toml").write_text(f'workload = "{code}:workload"\nops = 3\n')
    (scenarios / "absent.toml").write_text(f'workload = "noop"\n{common}')
    (scenarios / "wrong.toml").write_text("ops = \n")
    target = f"lite=sqlite:///{tmp_path}/data.sqlite,sock=postgresql://u@/db?host={tmp_path}/run"
    async with serving(target=target) as service:
        run = await service.ended(await service.start("falls", "lite"))
        assert run["settings"]["workload"] == "falls.py:workload"
        failed = await service.ended(await service.start("absent", "lite"))
        assert failed["reasons"] == ["cannot read none.json: No such file or directory"]
        targets = (await service.client.get("/api/targets")).json()["targets"]
        assert [one["place"] for one in targets] == ["data.sqlite", "a socket of this machine"]
        paths = ["/api/scenarios", "/api/targets", "/api/runs", "/api/audit", "/metrics"]
        paths += ["/api/jobs/lite", "/api/jobs/sock", "/api/runs/2"]
        for rest in ("", "/charts", "/events", *(f"/report.{form}" for form in FORMS)):
            paths.append(f"/api/runs/{run['id']}{rest}")
        for path in paths:
            answer = await service.client.get(path)
            assert answer.status_code in (200, 502), answer.text
            assert str(tmp_path) not in answer.text, path
        report = await service.client.get(f"/api/runs/{run['id']}/report.json")
        assert "cannot read falls.py" in report.text
        assert 'File \\"falls.py\\", line' in report.text


FORMS = ("html", "json", "xml", "md")
