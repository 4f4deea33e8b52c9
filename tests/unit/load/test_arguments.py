"""Arguments of a workload: read by their types, and wrong ones in a line."""

from __future__ import annotations

from typing import Any

import pytest

from async_loader import ConfigurationError, Workload


def workload() -> Workload:
    shop = Workload("shop")
    shop.argument("page_size", 20)
    shop.argument("ratio", 0.5)
    shop.argument("cached", default=True)
    shop.argument("tenant", type=str)
    return shop


def values(shop: Workload) -> list[Any]:
    return [argument.value for argument in shop.arguments.values()]


def test_they_are_read_by_their_types() -> None:
    shop = workload()
    shop.set_arguments(tenant="7")
    assert values(shop) == [20, 0.5, True, "7"]
    shop.set_arguments(page_size="50", ratio="1", cached="no", tenant="a=b")
    assert values(shop) == [50, 1.0, False, "a=b"]
    shop.set_arguments(page_size=30, ratio=1, tenant="c")
    assert values(shop) == [30, 1.0, True, "c"], "what is not given has its default again"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pagesize": "1"}, "workload 'shop' has no argument 'pagesize': did you mean page_size?"),
        (
            {"x": "1"},
            "workload 'shop' has no argument 'x': it has page_size, ratio, cached, tenant",
        ),
        ({"page_size": "a"}, "the argument page_size is a whole number, not 'a'"),
        ({"page_size": True}, "the argument page_size is a whole number, not True"),
        ({"ratio": "a"}, "the argument ratio is a number, not 'a'"),
        ({"cached": "2"}, "the argument cached is true or false, not '2'"),
        ({}, "workload 'shop' needs the argument tenant: give tenant=…"),
    ],
)
def test_a_wrong_one_is_one_line(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        workload().set_arguments(**given)
    assert str(raised.value) == said


def test_a_type_of_their_own() -> None:
    shop = Workload("shop")
    sizes = shop.argument("sizes", type=lambda text: [int(size) for size in text.split("/")])
    with pytest.raises(ConfigurationError, match=r"sizes has no default: give sizes="):
        print(sizes.value)
    shop.set_arguments(sizes="1/2")
    assert sizes.value == [1, 2]
    with pytest.raises(ConfigurationError, match="sizes cannot be read: ValueError"):
        shop.set_arguments(sizes="secret")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("page", {"default": 1}, "two arguments named 'page'"),
        ("a=b", {"default": 1}, "text without ="),
        ("size", {}, "needs a default or a type="),
        ("size", {"default": [1]}, "needs a type= that makes list of text"),
    ],
)
def test_what_nobody_could_give(name: str, options: dict[str, Any], said: str) -> None:
    shop = Workload("shop")
    shop.argument("page", 1)
    with pytest.raises(ConfigurationError, match=said):
        shop.argument(name, **options)
