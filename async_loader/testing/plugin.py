"""
The plugin that pytest finds by itself: the fixtures `load_test` and `query_budget`, and its marker.

Every pytest of an environment loads it: it imports neither SQLAlchemy nor a driver, and nothing of
this package, before a test asks for one of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from functools import wraps
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .budgets import QueryBudget
    from .fixture import LoadTest

_NAME = "query_budget"
_MARKER = (
    "query_budget(max_statements=, max_n_plus_one=0, max_ms_database=, fixtures=False): fail a "
    "test whose own statements are more, or one of them an N+1; `fixtures` counts all of the "
    "process from the set-up on"
)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture(scope="session")
def load_test() -> Iterator[LoadTest]:
    """
    Run a workload in a test.

    It takes no part in how a test's coroutine is run: pytest-asyncio and anyio both will do.
    """
    from .fixture import LoadTest  # noqa: PLC0415  who loads the plugin may never run a load

    with ExitStack() as stack:
        yield LoadTest(stack)


@pytest.fixture
def query_budget(request: pytest.FixtureRequest) -> QueryBudget:
    """Limit what a test sends to its databases: `query_budget(max_statements=3)`."""
    return _budgets_of(request.node).by_call


class _TestBudgets:
    """The budgets of one test, and the watch that they are told by."""

    def __init__(self, item: pytest.Item, marker: pytest.Mark | None) -> None:
        # Imported here, as it imports SQLAlchemy: only a test that asks for it pays for it.
        from .budgets import Limits, QueryBudget  # noqa: PLC0415
        from .statements import Watch  # noqa: PLC0415

        self.watch = Watch()
        self.by_call = QueryBudget(self.watch)
        self.limits: Limits | None = None
        self.of_fixtures = False
        self.reached = False
        self._item = item
        if marker is not None:
            named = dict(marker.kwargs)
            self.of_fixtures = bool(named.pop("fixtures", False))
            try:
                self.limits = Limits.of(marker.args, named)
            except ValueError as error:
                pytest.fail(f"{item.nodeid}: {error}", pytrace=False)

    def begin(self) -> None:
        """Begin to count what the marker limits."""
        if self.limits is not None:
            limits = self.limits
            self.by_call(
                max_statements=limits.max_statements,
                max_n_plus_one=limits.max_n_plus_one,
                max_ms_database=limits.max_ms_database,
            )

    def judge(self) -> None:
        """Fail the test where a budget that has not ended before is exceeded."""
        open_ones = [budget for budget in self.by_call.budgets if not budget.over]
        if open_ones and not self.reached:
            pytest.fail(
                f"{self._item.nodeid}: query_budget cannot see into a test of this kind",
                pytrace=False,
            )
        for budget in open_ones:
            budget.end()
            if (broken := budget.broken()) is not None:
                pytest.fail(broken, pytrace=False)


_BUDGETS = pytest.StashKey[_TestBudgets]()


def _budgets_of(item: pytest.Item) -> _TestBudgets:
    return item.stash[_BUDGETS]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Make the budgets of a test that asks for them; count its fixtures, where it says so."""
    marker = item.get_closest_marker(_NAME)
    if marker is None and _NAME not in getattr(item, "fixturenames", ()):
        return (yield)
    budgets = item.stash[_BUDGETS] = _TestBudgets(item, marker)
    if not budgets.of_fixtures:
        return (yield)
    from .statements import all_counted  # noqa: PLC0415

    budgets.begin()
    with all_counted(budgets.watch):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Count what a test sends, and fail it where that is too much."""
    budgets = item.stash.get(_BUDGETS, None)
    if budgets is None:
        return (yield)
    from .carrying import threads_carry_the_watch  # noqa: PLC0415
    from .statements import all_counted, at_work, listening  # noqa: PLC0415

    with ExitStack() as stack:
        if budgets.of_fixtures:
            stack.enter_context(all_counted(budgets.watch))
            budgets.reached = True
        else:
            budgets.begin()
            stack.enter_context(threads_carry_the_watch())
            stack.enter_context(listening())
            stack.enter_context(at_work(budgets.watch))
            stack.callback(_wrap(item, budgets))
        result = yield
    budgets.judge()
    return result


def _wrap(item: pytest.Item, budgets: _TestBudgets) -> Callable[[], None]:
    """
    Have the test's own function at work for its watch, wherever it is run; return what undoes it.

    A plugin may run it in a task of another context than the hook's.
    """
    function = getattr(item, "obj", None)
    if function is None:
        return lambda: None
    handle = getattr(function, "hypothesis", None)  # it calls the test for each example
    if handle is not None:
        inner = handle.inner_test
        handle.inner_test = _watched(inner, budgets)

        def unwrap_inner() -> None:
            handle.inner_test = inner

        return unwrap_inner
    ours = _watched(function, budgets)
    item.obj = ours  # type: ignore[attr-defined]
    instance = getattr(item, "instance", None)
    name = getattr(function, "__name__", "")
    # unittest's own asyncio tests are looked up by their name.
    if instance is not None and hasattr(instance, "_callTestMethod"):
        setattr(instance, name, ours)

    def unwrap() -> None:
        item.obj = function  # type: ignore[attr-defined]

    return unwrap


def _watched(function: Callable[..., Any], budgets: _TestBudgets) -> Callable[..., Any]:
    from .statements import at_work  # noqa: PLC0415

    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def test(*args: Any, **kwargs: Any) -> Any:
            budgets.reached = True
            with at_work(budgets.watch):
                return await function(*args, **kwargs)
    else:

        @wraps(function)
        def test(*args: Any, **kwargs: Any) -> Any:
            budgets.reached = True
            with at_work(budgets.watch):
                return function(*args, **kwargs)

    return test
