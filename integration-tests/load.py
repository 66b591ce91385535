"""Clients that call without end, as the pools of real clients do."""

import concurrent.futures
import random
import select
import socket
import threading
import time
import traceback

from wire import Peer, Thrift


def in_threads(work, arguments) -> list:
    """Does `work` with each of the arguments at the same time, and gives the results; the first failure is raised."""
    arguments = list(arguments)
    with concurrent.futures.ThreadPoolExecutor(len(arguments)) as pool:
        return [future.result() for future in [pool.submit(work, argument) for argument in arguments]]


class Connection:
    """A connection of a pool: one call at a time."""

    def __init__(self, port, wire):
        self.peer, self.wire, self.calls = Peer.connect(port), wire, 0
        self.dismissed = False

    def is_usable(self) -> bool:
        """It was not closed while idle, and the peer has not said to take the next calls elsewhere."""
        while not self.dismissed and select.select([self.peer.socket], [], [], 0)[0]:
            try:
                if self.peer.socket.recv(1, socket.MSG_PEEK) == b"":
                    return False
            except ConnectionResetError:
                return False
            self.take(self.peer.frame())
        return not self.dismissed

    def take(self, frame: bytes):
        if not self.wire.is_read_only(frame):
            raise AssertionError(f"nobody asked for {frame!r}")
        self.dismissed = True

    def call(self) -> bytes:
        self.calls += 1
        number = self.calls
        self.peer.send(self.wire.call(number, "hello"))
        frame = self.peer.frame()
        while self.wire.is_read_only(frame):
            self.dismissed = True
            frame = self.peer.frame()
        got = self.wire.parse(frame)
        if (got["ok"], got["id"]) != (True, number):
            raise AssertionError(f"call {number} got {got}")
        return self.wire.value(frame)


class Load:
    """Calls from several clients, each of which thinks a little between two, and takes a new connection after `renew` calls,
    if that is said. Every failure is kept."""

    def __init__(self, port, wire=Thrift, clients=4, think=0.003, renew=None):
        self.port, self.wire, self.think, self.renew = port, wire, think, renew
        self.failures, self.calls, self.connections, self.stopped = [], 0, 0, False
        self.seen: dict[bytes, int] = {}
        self.lock = threading.Lock()
        self.pool = concurrent.futures.ThreadPoolExecutor(clients)
        self.clients = [self.pool.submit(self.run) for _ in range(clients)]

    def run(self):
        connection = None
        while not self.stopped:
            try:
                if connection is None or not connection.is_usable():
                    if connection is not None:
                        connection.peer.close()
                    connection = None
                    connection = Connection(self.port, self.wire)
                    with self.lock:
                        self.connections += 1
                value = connection.call()
                connection.dismissed |= connection.calls == self.renew
                with self.lock:
                    self.calls += 1
                    self.seen[value] = self.seen.get(value, 0) + 1
            # Whatever it is: a client that is lost is a failure as well.
            except Exception:  # noqa: BLE001
                with self.lock:
                    self.failures.append(traceback.format_exc(limit=-2))
                connection = None
            time.sleep(random.uniform(self.think / 2, self.think * 2))

    def more(self, calls: int) -> bool:
        """Whether that many calls were made since this was asked first; for `wait_until`."""
        self.wanted = getattr(self, "wanted", None) or self.calls + calls
        if self.calls < self.wanted:
            return False
        self.wanted = None
        return True

    def end(self):
        self.stopped = True
        for client in self.clients:
            client.result()
        self.pool.shutdown()
