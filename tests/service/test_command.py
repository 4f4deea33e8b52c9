"""`async_loader serve` as a command: what it says, and what it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from async_loader.service.tokens import hashed
from tests.acceptance.conftest import environment


def python(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        check=False, capture_output=True, text=True, cwd=folder, env=environment(), timeout=60,
    )  # fmt: skip


def serve(*argv: str, before: str = "") -> str:
    return (
        f"import sys\n{before}\nfrom async_loader.cli.main import main\n"
        f"sys.exit(main(['serve', *{argv!r}]))"
    )


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    code = serve("--config-dir", ".", before="sys.modules['fastapi'] = None")
    done = python(tmp_path, code)
    assert done.returncode == 104
    assert done.stderr == (
        "async_loader: serve needs the extra 'service': pip install 'async_loader[service]'\n"
    )


def test_the_other_commands_import_none_of_it(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom async_loader.cli.main import main\n"
        "main(['--ops', '1', '--workload', 'noop', '--progress', 'none'])\n"
        "wanted = {'fastapi', 'uvicorn', 'alembic', 'prometheus_client', 'psutil', 'starlette'}\n"
        "sys.exit(str(wanted & set(sys.modules)) if wanted & set(sys.modules) else 0)"
    )
    done = python(tmp_path, code)
    assert done.returncode == 0, done.stderr


def test_a_token_is_printed_once_with_what_the_settings_take(tmp_path: Path) -> None:
    done = python(tmp_path, serve("--new-token", "ci"))
    token = done.stdout.strip()
    assert done.returncode == 0
    assert f"--token ci={hashed(token)}" in done.stderr
    assert token not in done.stderr


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("What was written here is no database." * 100)
    remote = ["--host", "192.0.2.1", "--allow-remote", "--token", f"ci={hashed('x')}"]
    mistakes = {
        "serve needs the folder of the scenarios: --config-dir DIR": [],
        "--config-dir nowhere: No such file or directory": ["--config-dir", "nowhere"],
        "--target one has the scheme": ["--config-dir", ".", "--target", "one=mysql://host/db"],
        "cannot listen on 192.0.2.1:8642: Cannot assign": ["--config-dir", ".", *remote],
        "--tls-certificate, --tls-key: No such file": [
            "--config-dir", ".", "--tls-certificate", "none.pem", "--tls-key", "none.pem",
        ],
        "no history can be kept in nowhere/h.sqlite: No such file or directory; see --history": [
            "--config-dir", ".", "--port", "0", "--history-url", "sqlite:///nowhere/h.sqlite",
        ],
        "nothing listens at 127.0.0.1:1: is the server running? (see --history-url)": [
            "--config-dir", ".", "--port", "0", "--history-url", "postgresql://u:pw@127.0.0.1:1/x",
        ],
        "no history can be kept in text.sqlite: file is not a database": [
            "--config-dir", ".", "--port", "0", "--history-url", "sqlite:///text.sqlite",
        ],
    }  # fmt: skip
    code = (
        "from async_loader.cli.main import main\n"
        f"for argv in {list(mistakes.values())!r}:\n"
        "    print(main(['serve', '--history-url', 'sqlite:///history.sqlite', *argv]))"
    )
    done = python(tmp_path, code)
    assert set(done.stdout.split()) == {"104", "110"}  # a wrong setting, no database
    for line, said in zip(done.stderr.splitlines(), mistakes, strict=True):
        assert line.startswith(f"async_loader: {said}")
