"""Servers that misbehave on purpose."""

import socket
import threading

from wire import Peer


class Server:
    """Accepts connections on a port of its own, unless told which, and hands each to `behave`, in a thread."""

    def __init__(self, behave, address="127.0.0.1", port=0):
        self.behave = behave
        self.listener = socket.socket()
        self.listener.bind((address, port))
        self.listener.listen(512)
        self.port = self.listener.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self.run, args=(Peer(connection),), daemon=True).start()

    def run(self, peer: Peer):
        try:
            self.behave(peer)
        except (OSError, EOFError):
            pass
        finally:
            peer.close()

    def close(self):
        self.listener.close()


def per_frame(answer):
    """Answers every frame with what `answer` gives; `None` hangs up."""
    def behave(peer: Peer):
        while True:
            data = answer(peer.frame())
            if data is None:
                return
            peer.send(data)
    return behave


class Counted(Server):
    """Answers each frame with what `answer` makes of it and of the number of frames so far, which it counts in `asked`."""

    def __init__(self, answer, *where):
        self.asked = 0

        def count(frame):
            self.asked += 1
            return answer(frame, self.asked)
        super().__init__(per_frame(count), *where)


def web_page(peer):
    """Answers one HTTP request."""
    while not peer.socket.recv(4096).endswith(b"\r\n\r\n"):
        pass
    peer.send(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
