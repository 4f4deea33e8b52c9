"""The OpenAPI document, and the service held against it."""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from async_loader.service.tokens import hashed, new_token
from async_loader.verdict.document import json_schema
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


async def test_results_are_in_it_as_the_command_prints_their_schema(service: Service) -> None:
    document = (await service.client.get("/api/openapi.json")).json()
    text, printed = json.dumps(document), json_schema()["$defs"]
    schemas = document["components"]["schemas"]
    referred = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert referred - schemas.keys() == set(), "every reference leads somewhere"
    assert {"Result", "Results", "Change"} <= referred
    for name, definition in printed.items():
        there = json.dumps(definition).replace("#/$defs/", "#/components/schemas/")
        assert schemas[name] == json.loads(there), name


async def test_answers_are_as_it_says(service: Service) -> None:
    document = (await service.client.get("/api/openapi.json")).json()
    first, second = [await service.have(made_up_run(random.Random(n))) for n in range(2)]
    both = f"run={first}&run={second}"
    for path, name in (
        (f"/api/runs/{first}/report.json", "Result"),
        (f"/api/compare/report.json?{both}", "Results"),
        (f"/api/compare?{both}", "ComparisonDocument"),
    ):
        answer = (await service.client.get(path)).json()
        schema = {**document, "$ref": f"#/components/schemas/{name}"}
        Draft202012Validator(schema).validate(answer)
