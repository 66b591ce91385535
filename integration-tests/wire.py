"""Thrift and Dubbo by hand: frames made and read without any codec, ours least of all."""

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
    """A socket that reads frames: Thrift's, or Dubbo's if they begin like them."""

    def __init__(self, connection):
        self.socket = connection

    @classmethod
    def connect(cls, port: int, timeout=20, address="127.0.0.1"):
        connection = socket.create_connection((address, port), timeout)
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
        if head[:2] == b"\xda\xbb":
            head += self.exactly(12)
            return head + self.exactly(struct.unpack(">I", head[12:])[0])
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


def failure(frame: bytes, kind: int, message: bytes) -> bytes:
    """A server's reply to a framed call: a TApplicationException."""
    asked = parse(frame)
    return call(asked["sequence"], asked["name"], text(message, 1), i32(kind, 2), kind=3)


class Thrift:
    """Framed strict binary Thrift."""

    name = "thrift"
    # TApplicationException types by the failure they tell: UNKNOWN_METHOD, PROTOCOL_ERROR; INTERNAL_ERROR for the rest.
    codes = {"no_route": 1, "too_large": 7}
    other = 6

    @staticmethod
    def call(number: int, method: str, argument=b"x") -> bytes:
        return call(number, method, text(argument))

    @staticmethod
    def answer(frame: bytes, value=b"fine") -> bytes:
        return reply(frame, value)

    @staticmethod
    def value(frame: bytes) -> bytes:
        """The only argument of a call, or the value of a reply: text."""
        return frame[16 + int.from_bytes(frame[8:12], "big") + 7:-1]

    @staticmethod
    def mirror(frame: bytes) -> bytes:
        """A reply with the request's own argument."""
        return reply(frame, Thrift.value(frame))

    @staticmethod
    def is_read_only(_: bytes) -> bool:
        """Thrift has no word for it."""
        return False

    @staticmethod
    def foreign(_: bytes) -> bytes:
        """A reply to a call that nobody made."""
        return call(5, "hello", text(b"x", 0), kind=2)

    @staticmethod
    def parse(frame: bytes) -> dict:
        parsed = parse(frame)
        return {"id": parsed["sequence"], "ok": parsed["kind"] == 2, "code": parsed.get("type"),
                "message": parsed.get("message")}


def hessian(value: str) -> bytes:
    """A hessian2 string of up to 1023 characters."""
    raw = value.encode()
    return (bytes([len(raw)]) if len(raw) < 32 else bytes([0x30 | len(raw) >> 8, len(raw) & 255])) + raw


def hessian_bytes(value: bytes) -> bytes:
    """Hessian2 binary of any length, in chunks."""
    chunks = [value[at:at + 0xFFFF] for at in range(0, len(value), 0xFFFF)] or [b""]
    raw = b"".join(b"A" + struct.pack(">H", len(chunk)) + chunk for chunk in chunks[:-1])
    return raw + b"B" + struct.pack(">H", len(chunks[-1])) + chunks[-1]


class Dubbo:
    """Dubbo2 with hessian2."""

    name = "dubbo"
    # Statuses by the failure they tell; 80 SERVER_ERROR for the rest.
    codes = {"no_route": 60, "timeout": 31, "connect_failure": 35, "upstream_reset": 35, "draining": 35, "too_large": 40,
             "bad_reply": 50, "denied": 70, "overflow": 100, "rate_limited": 100}
    other = 80

    @staticmethod
    def call(number: int, method: str, argument=b"x", two_way=True) -> bytes:
        parts = [hessian(part) for part in ("2.0.2", "peer.Demo", "0.0.0", method, "[B")]
        body = b"".join(parts) + hessian_bytes(argument) + b"H" + hessian("path") + hessian("peer.Demo") + b"Z"
        return struct.pack(">HBBQI", 0xDABB, 0xC2 if two_way else 0x82, 0, number, len(body)) + body

    @staticmethod
    def answer(frame: bytes, value=b"fine") -> bytes:
        body = b"\x94" + hessian(value.decode()) + b"H" + hessian("dubbo") + hessian("2.0.2") + b"Z"
        return struct.pack(">HBB", 0xDABB, 0x02, 20) + frame[4:12] + struct.pack(">I", len(body)) + body

    @staticmethod
    def value(frame: bytes) -> bytes:
        """The only argument of a call, or the value of a reply: bytes as they are encoded, or short text."""
        if frame[2] & 0x80:
            return frame[frame.index(b"[B") + 2:frame.rindex(b"H\x04path")]
        if frame[16] == 0x94:
            return frame[18:18 + frame[17]]
        return frame[17:]

    @staticmethod
    def mirror(frame: bytes) -> bytes:
        """A reply with the request's own argument."""
        body = b"\x91" + Dubbo.value(frame)
        return struct.pack(">HBB", 0xDABB, 0x02, 20) + frame[4:12] + struct.pack(">I", len(body)) + body

    @staticmethod
    def is_read_only(frame: bytes) -> bool:
        """An event without an answer that tells clients to take their next calls elsewhere."""
        return frame[:4] == b"\xda\xbb\xa2\x00"

    @staticmethod
    def foreign(frame: bytes) -> bytes:
        return Dubbo.answer(frame[:4] + b"\xff" * 8 + frame[12:])

    @staticmethod
    def parse(frame: bytes) -> dict:
        status, number = frame[3], struct.unpack(">Q", frame[4:12])[0]
        if status == 20:
            return {"id": number, "ok": frame[16] in (0x94, 0x91), "code": None, "message": None}
        first, start = frame[16], 17
        if 0x30 <= first <= 0x33:
            start = 18
        elif first == ord("S"):
            start = 19
        return {"id": number, "ok": False, "code": status, "message": frame[start:].decode()}
