"""Which connections give way to others."""

from __future__ import annotations

from async_loader.service.connections import Connections


class Client:
    """A connection that can be cut."""

    def __init__(self, address: str = "192.0.2.1") -> None:
        self.address = address
        self.cut = False

    def abort(self) -> None:
        self.cut = True


def let_in(connections: Connections, *clients: Client) -> None:
    for client in clients:
        assert connections.enter(client)


def test_the_one_that_is_silent_for_longest_gives_way() -> None:
    connections = Connections(2)
    first, second, third, fourth = (Client() for _ in range(4))
    let_in(connections, first, second)
    connections.busy(first)
    connections.silent(first)  # answered: it is silent since now
    connections.silent(second)  # keeps its place
    let_in(connections, third)
    assert (first.cut, second.cut) == (False, True)
    let_in(connections, fourth)
    assert first.cut
    assert len(connections) == 2


def test_who_is_answered_is_left_alone() -> None:
    connections = Connections(2)
    first, second, third = (Client() for _ in range(3))
    let_in(connections, first, second)
    connections.busy(first)
    connections.busy(second)
    assert not connections.enter(third)
    connections.leave(first)
    connections.leave(first)  # its protocol says so, and its transport
    assert connections.enter(third)
    assert not second.cut


def test_one_address_leaves_room_for_others() -> None:
    connections = Connections(100)
    many = [Client() for _ in range(80)]
    let_in(connections, *many)
    let_in(connections, Client(), *(other := [Client("192.0.2.2") for _ in range(20)]))
    assert [client.cut for client in many[:2]] == [True, False]  # one of its own gave way
    for client in many[1:]:
        connections.busy(client)
    assert not any(client.cut for client in other)


def test_a_proxy_is_no_client() -> None:
    connections = Connections(100, exempt=["192.0.2.1"])
    many = [Client() for _ in range(100)]
    let_in(connections, *many)
    assert not any(client.cut for client in many)


def test_what_is_cut_is_heard_of_no_more() -> None:
    connections = Connections(1)
    first, second = Client(), Client()
    let_in(connections, first, second)
    connections.silent(first)  # the last word of its protocol
    connections.leave(first)
    let_in(connections, Client())
    assert second.cut
    assert len(connections) == 1
