"""The OpenAPI document, and the service held against it."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest

from async_loader.service.tokens import hashed, new_token
from tests.unit.runs import made_up_run

from .conftest import Service, Serving

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "negative_data_rejection",
    "missing_required_header", "unsupported_method", "allow_header_conformance", "ignored_auth",
)  # fmt: skip
EVERY = "examples,coverage,fuzzing,stateful"


@pytest.mark.parametrize(
    ("phases", "examples", "with_token"),
    [
        ("fuzzing", 2, False),
        pytest.param(EVERY, 50, False, marks=pytest.mark.soak),
        pytest.param(EVERY, 50, True, marks=pytest.mark.soak),
    ],
)
@pytest.mark.timeout(900)
async def test_no_answer_is_a_defect_or_undocumented(
    phases: str, examples: int, with_token: bool, serving: Serving, tmp_path: Path
) -> None:
    token = new_token()
    proof = f"Authorization: Bearer {token}" if with_token else "X-Async-Loader: 1"
    known = f"ci={hashed(token)}" if with_token else []
    # Short runs: who watches one waits for its end.
    async with serving(token=known, max_duration=1.0) as service:
        name, _, value = proof.partition(": ")
        service.client.headers[name] = value
        for number in range(2):
            await service.have(made_up_run(random.Random(number)))
        tool = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "schemathesis.cli", "run",
            f"{service.client.base_url}/api/openapi.json", "-H", proof, "--seed", "1",
            "--phases", phases, "--checks", ",".join(CHECKS), "--max-examples", str(examples),
            "--generation-database", "none", "--suppress-health-check", "all",
            cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await tool.communicate()
        assert tool.returncode == 0, output.decode()
        assert b" passed" in output


async def test_the_document_tells_the_bounds_and_what_a_problem_is(service: Service) -> None:
    document = (await service.client.get("/api/openapi.json")).json()
    schemas = document["components"]["schemas"]
    overrides = schemas["Overrides"]["properties"]
    assert overrides["concurrency"]["anyOf"][0]["maximum"] == 1000
    for path, methods in document["paths"].items():
        assert methods.keys() <= {"get", "post"}, path
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    (media,) = answer["content"]
                    assert media == "application/problem+json", (method, path, status)
    assert set(schemas["ProblemDocument"]["required"]) == {"title", "status", "detail"}
