"""Calls from a pod, by real clients."""

import collections

from thrift.Thrift import TApplicationException
from thrift.transport.TTransport import TTransportException

from clients import client
from harness import wait_until


def call(pod, address: str, port: int, method="hello", argument="x", count=1, headers=None, **options):
    """Answers by their text, exceptions by their type and message; all on one connection. Headers need THeader."""
    seen = collections.Counter()
    with pod.dialed(client(port, address=address, **options)) as demo:
        for _ in range(count):
            # THeader sends a header with one call only.
            for name, value in (headers or {}).items():
                demo.encoding.trans.set_header(name.encode(), value.encode())
            seen[one(demo, method, argument)] += 1
    return seen


def one(demo, method="hello", argument="x") -> str:
    try:
        return getattr(demo, method)(argument)
    except TApplicationException as error:
        return f"{error.type}: {error.message}"


def eventually(pod, address: str, port: int, expected, seconds=30, **options):
    """Calls until the answers are as they should be, and gives them."""
    last = None

    def good():
        nonlocal last
        try:
            last = call(pod, address, port, **options)
        except (OSError, EOFError, TTransportException) as error:
            last = error
            return False
        return expected(last) if callable(expected) else set(last) == set(expected)
    try:
        wait_until(good, "the answer", seconds)
        return last
    except TimeoutError:
        raise AssertionError(f"last seen: {last!r}") from None
