from __future__ import annotations

from pathlib import Path

import pytest

from async_loader import ConfigurationError, Limit
from async_loader.settings.mistakes import with_flags
from async_loader.settings.option_group import Group
from async_loader.settings.option_types import parse_seconds
from async_loader.settings.run import RunSettings
from async_loader.settings.serve import ScenarioSettings
from async_loader.settings.sources import COMMANDS, Layer, load, settings_of


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No `.env` and no variables but a test's own."""
    monkeypatch.chdir(tmp_path)


def run_settings(*argv: str) -> RunSettings:
    settings = load(argv)
    assert isinstance(settings, RunSettings)
    return settings


def mistake(*argv: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(argv)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("other", ["--processes=2", "--mode=sync", "--no-time-split"])
def test_a_profile_is_of_one_event_loop(other: str) -> None:
    assert run_settings("--profile", "p.json").profile == str(Path("p.json").absolute())
    assert "--profile is of one event loop" in mistake("--profile", "p.json", other)
    assert "cannot write a file there" in mistake("--profile", "absent/p.json")


def test_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each source in turn is overruled by the one above it."""
    file = tmp_path / "x.toml"
    assert run_settings().concurrency == 40
    file.write_text("concurrency = 1\nseed = 1\ngrace = '1s'\nop-timeout = 11\n")
    Path(".env").write_text(
        "ASYNC_LOADER_CONCURRENCY=2\nASYNC_LOADER_SEED=2\nASYNC_LOADER_GRACE=2s"
    )
    monkeypatch.setenv("ASYNC_LOADER_CONCURRENCY", "3")
    monkeypatch.setenv("ASYNC_LOADER_SEED", "3")
    settings = run_settings("--config", str(file), "--concurrency", "4")
    assert (settings.concurrency, settings.seed, settings.grace, settings.op_timeout) == (
        4,
        3,
        2,
        11,
    )


def test_the_file_may_be_named_by_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.toml").write_text("seed = 5")
    monkeypatch.setenv("ASYNC_LOADER_CONFIG", "x.toml")
    assert run_settings().seed == 5


def test_the_first_argument_picks_the_command() -> None:
    assert run_settings("run", "--ops", "5").ops == run_settings("--ops", "5").ops == 5
    assert "did you mean run?" in mistake("runn")
    assert "did you mean job status?" in mistake("job", "statsu")
    assert "job takes a second word: job run, " in mistake("job", "--help")


def test_ops_or_duration() -> None:
    assert run_settings().limit == Limit(ops=35_000)
    assert run_settings("--duration", "2m").limit == Limit(duration=120)
    assert "exclude each other" in mistake("--ops", "1", "--duration", "1s")


def test_of_two_exclusive_options_the_stronger_source_wins(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("ops = 100")
    assert run_settings("--config", "x.toml", "--duration", "3s").limit == Limit(duration=3)
    (tmp_path / "x.toml").write_text("duration = '3s'")
    assert run_settings("--config", "x.toml", "--ops", "7").limit == Limit(ops=7)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("2m", 120),
        ("500ms", 0.5),
        ("1h", 3600),
        ("1.5", 1.5),
        ("10 us", 1e-5),
        ("1h30m", 5400),
        ("1m30s", 90),
        ("1 d 2h", 93_600),
        ("1.5h", 5400),
    ],
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["30m1h", "1h1h", "1h30", "h", "1e3s", "1y"])
def test_what_is_no_duration(text: str) -> None:
    assert "1h30m" in mistake("--duration", text)


def test_warmup_is_a_number_or_a_time() -> None:
    assert run_settings("--warmup", "500").warmup == Limit(ops=500)
    assert run_settings("--warmup", "5s").warmup == Limit(duration=5)


def test_shares_may_be_percentages() -> None:
    assert run_settings("--max-error-rate", "2.5%").max_error_rate == 0.025
    assert "it is at most 1" in mistake("--write-ratio", "2")


def test_flags_of_yes_and_no(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_settings().reads_autocommit
    assert run_settings().batches_inserts
    assert run_settings().has_fast_paths
    assert not run_settings("-w", "shop.py").has_fast_paths
    assert run_settings("-w", "shop.py:load", "--fast-paths").has_fast_paths
    assert not run_settings("--no-fast-paths").has_fast_paths
    with monkeypatch.context() as switched_off:
        switched_off.setenv("ASYNC_LOADER_FAST_PATHS", "off")
        assert not run_settings().has_fast_paths
        assert not run_settings("--fast-paths").has_fast_paths
    own = run_settings("-w", "shop.py")
    assert (own.reads_autocommit, own.batches_inserts) == (False, False)
    asked = run_settings("-w", "shop.py:load", "--read-autocommit", "--batch-inserts")
    assert (asked.reads_autocommit, asked.batches_inserts) == (True, True)
    assert "--batch-inserts" in mistake("compare", "-w", "shop.py", "--modes", "stock")
    assert not run_settings("--no-read-autocommit").reads_autocommit
    assert not run_settings("--read-via", "stream").reads_autocommit
    assert "exclude each other" in mistake("--read-via", "stream", "--read-autocommit")
    monkeypatch.setenv("ASYNC_LOADER_KEEP_DATA", "true")
    assert run_settings().keep_data


def test_lists_repeat_as_flags_and_take_commas_as_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run_settings("--out", "json=/a", "--out", "json=/b").out == ["json=/a", "json=/b"]
    monkeypatch.setenv("ASYNC_LOADER_OUT", "json=/a,json=/b")
    assert run_settings().out == ["json=/a", "json=/b"]
    assert run_settings("--out", "json=/c").out == ["json=/c"]
    assert run_settings("--out", "json=c").out == [f"json={Path.cwd() / 'c'}"]


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["--concurency", "4"], "--concurrency"),
        (["--concurency=4"], "--concurrency"),
        (["--mode", "semafore"], "did you mean semaphore?"),
        (["--no-read-autocomit"], "--no-read-autocommit"),
        (["--ops"], "--ops: expected one argument"),
        (["--ops", "many"], "--ops"),
        (["--duration", "soon"], "500ms, 30s, 2m, 1h30m or 1d"),
        (["--ops", "1.5"], "--ops: it is a whole number"),
        (["--ops", str(10**21)], "--ops: it is at most 1,000,000,000,000"),
        (["--warmup", str(10**21)], "--warmup: a run's operations are"),
        (["--concurrency", "0"], "--concurrency: it is at least 1"),
        (["--pool-size", str(10**21)], "--pool-size: it is at most"),
        (["--op-timeout", "0"], "--op-timeout: it is above 0"),
        (["--grace", "99999999999d"], "--grace: it is at most"),
        (["--write-ratio", "half%"], "--write-ratio: a share looks like"),
        (["--html="], "--html: it is empty"),
        (["--calibrate", "--rate", "5/s"], "--calibrate finds the rates itself"),
        (["--calibrate", "--mode", "sync"], "--calibrate finds the rates itself"),
        (["--calibrate", "--threshold", "errors:rate<1%"], "--calibrate is of several runs"),
        (["--label", "two\nlines"], "--label: a label is one line"),
        (["--label", "x" * 201], "--label: it has at most 200 characters"),
        (["--rate", "1000000000/s", "--duration", "0.1s"], "a rate is at most 200,000/s in one"),
        (["--stage", "1s:1000000000/s"], "a rate is at most 200,000/s in one"),
        (["-w", "a.py", "--workload", "b.py:load"], "--workload: there are two of them"),
        (["--workload=a.py", "-w", "b.py"], "--workload: there are two of them"),
        (["--out", "xml=x"], "FORM=FILE"),
        (["run", "40"], "unexpected argument '40'"),
        (["--config", "absent.toml"], "absent.toml: No such file"),
    ],
)
def test_mistakes_name_the_closest_right_thing(argv: list[str], hint: str) -> None:
    assert hint in mistake(*argv)


def test_a_wrong_key_value_or_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.toml"
    file.write_text("concurency = 4")
    message = mistake("--config", str(file))
    assert f"'concurency' in {file}" in message
    assert "did you mean concurrency?" in message
    file.write_text("concurrency = 'x'")
    assert f"'concurrency' in {file}: " in mistake("--config", str(file))
    file.write_text("concurrency = ")
    assert "is not TOML" in mistake("--config", str(file))
    Path(".env").write_text("ASYNC_LOADER_SEDE=1\nOTHER_THING=1")
    message = mistake()
    assert "ASYNC_LOADER_SEDE in .env" in message
    assert "ASYNC_LOADER_SEED" in message
    Path(".env").unlink()
    monkeypatch.setenv("ASYNC_LOADER_OPS", "-1")
    assert mistake().startswith("ASYNC_LOADER_OPS: ")


@pytest.mark.parametrize(
    ("data", "seed"),
    [
        (b"NAME=caf\xe9\nASYNC_LOADER_SEED=7\n", 7),
        (b"\xef\xbb\xbfASYNC_LOADER_SEED=7\n", 7),
        ("ASYNC_LOADER_SEED=7\n".encode("utf-16"), 7),
        (b"\xff\x00\x80 nothing of anybody's\n", 0),
    ],
)
def test_the_dotenv_file_of_an_application_is_read_in_any_encoding(data: bytes, seed: int) -> None:
    Path(".env").write_bytes(data)
    assert run_settings().seed == seed


def test_a_dotenv_file_that_may_not_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("ASYNC_LOADER_SEED=7")

    def refuse(_path: Path) -> bytes:  # root may read whatever its mode says
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert ".env of this folder cannot be read: Permission denied" in mistake()


def test_a_high_rate_may_be_shared() -> None:
    assert run_settings("--rate", "300000/s", "--processes", "2").is_open


@pytest.mark.parametrize(
    "argv",
    [
        ["--database-url", "postgresql://u:hunter2@h/d", "--ops", "x"],
        ["--database-url=postgresql://h/d?password=hunter2", "--opps", "1"],
        ["--databse-url=postgresql://u:hunter2@h/d"],
        ["--databse-url", "postgresql://u:hunter2@h/d"],
        ["--out", "postgresql://u:hunter2@h/d"],
    ],
)
def test_no_mistake_shows_a_password(argv: list[str]) -> None:
    assert "hunter2" not in mistake(*argv)


def test_settings_do_not_show_a_password() -> None:
    settings = run_settings("--database-url", "postgresql://u:hunter2@h/d")
    assert "hunter2" not in repr(settings) + settings.model_dump_json()


def test_help_shows_every_option_with_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        load(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for name in RunSettings.model_fields:
        assert f"--{name.replace('_', '-')}" in text
    for base in RunSettings.__mro__:
        if issubclass(base, Group) and base.__annotations__ and "title" in vars(base):
            assert f"\n{base.title}:\n" in text
    assert all(len(line) <= 80 for line in text.splitlines()[1:])


def test_every_option_is_described_and_every_command_has_the_general_ones() -> None:
    for model in COMMANDS.values():
        assert {"config", "debug"} <= set(model.model_fields)
        for name, field in model.model_fields.items():
            assert field.description, name


def test_a_scenario_is_one_run() -> None:
    with pytest.raises(ConfigurationError, match="calibrate is of several runs"):
        settings_of(ScenarioSettings, [Layer({"calibrate": True}, "'{key}' in x.toml")])


def test_what_a_message_names_is_a_flag_where_there_is_one() -> None:
    message = "give `database_url` or `sessions`, not `x`"
    assert with_flags(message, {"database_url"}) == "give --database-url or `sessions`, not `x`"
