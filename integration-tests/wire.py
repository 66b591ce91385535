"""Thrift by hand: frames made and read without any codec, ours least of all."""

import socket
import struct


def call(sequence: int, method: str, *fields: bytes, kind=1) -> bytes:
    """A framed strict binary message."""
    name = method.encode()
    body = struct.pack(">HBBI", 0x8001, 0, kind, len(name)) + name + struct.pack(">I", sequence)
    body += b"".join(fields) + b"\0"
    return struct.pack(">I", len(body)) + body


def text(value: bytes, field=1) -> bytes:
    """A string field."""
    return struct.pack(">BHI", 11, field, len(value)) + value


def i32(value: int, field=1) -> bytes:
    return struct.pack(">BHi", 8, field, value)


def reply(frame: bytes, value: bytes) -> bytes:
    """A server's reply to a framed call: a string."""
    length = struct.unpack(">I", frame[8:12])[0]
    name, sequence = frame[12:12 + length].decode(), struct.unpack(">I", frame[12 + length:16 + length])[0]
    return call(sequence, name, text(value, field=0), kind=2)


class Peer:
    """A socket that reads frames."""

    def __init__(self, connection):
        self.socket = connection

    @classmethod
    def connect(cls, port: int, timeout=20):
        connection = socket.create_connection(("127.0.0.1", port), timeout)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(connection)

    def send(self, data: bytes):
        self.socket.sendall(data)

    def exactly(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            piece = self.socket.recv(min(length - len(data), 1 << 20))
            if not piece:
                raise EOFError(f"the peer hung up after {len(data)} of {length} bytes")
            data += piece
        return bytes(data)

    def frame(self) -> bytes:
        head = self.exactly(4)
        return head + self.exactly(struct.unpack(">I", head)[0])

    def ended(self) -> bool:
        """The peer hangs up without another byte."""
        return self.socket.recv(1) == b""

    def close(self):
        self.socket.close()

    def reset(self):
        """Hangs up with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def parse(frame: bytes) -> dict:
    """Kind, name, sequence and, for a TApplicationException, its type and message."""
    _, kind, length = struct.unpack(">HxBI", frame[4:12])
    name = frame[12:12 + length].decode()
    sequence = struct.unpack(">I", frame[12 + length:16 + length])[0]
    parsed = {"kind": kind, "name": name, "sequence": sequence}
    body = frame[16 + length:]
    if kind == 3:
        size = struct.unpack(">I", body[3:7])[0]
        parsed |= {"message": body[7:7 + size].decode(), "type": struct.unpack(">i", body[10 + size:14 + size])[0]}
    return parsed
