"""What real peers said to each other, said again through Envoy: every captured frame arrives as it was, both ways."""

import pathlib
import queue
import struct

import pytest
from thrift.protocol.TProtocol import TType
from thrift.transport.TTransport import TMemoryBuffer

from common import PROTO
from harness import free_port, service
from servers import Server
from wire import Peer

CORPUS = pathlib.Path(__file__).resolve().parent.parent / "codecs" / "corpus"
CAPTURES = sorted(path.name.removesuffix(".client.bin") for path in CORPUS.glob("*/*.client.bin"))
HOST = "echo.test"


def prefixed(data: bytes) -> int:
    """Length of the first frame of a transport that says it first."""
    return 4 + struct.unpack(">I", data[:4])[0]


def dubbo(data: bytes) -> int:
    return 16 + struct.unpack(">I", data[12:16])[0]


def unframed(protocol: str):
    """Length of the first message, found by Apache Thrift's own reader."""
    def length(data: bytes) -> int:
        buffer = TMemoryBuffer(data)
        reader = PROTO[protocol].getProtocol(buffer)
        reader.readMessageBegin()
        reader.skip(TType.STRUCT)
        reader.readMessageEnd()
        return buffer.cstringio_buf.tell()
    return length


class Capture:
    """The requests of a captured connection, and the reply of each: none to a one-way call."""

    def __init__(self, name: str):
        self.protocol = "thrift" if (CORPUS / "thrift" / f"{name}.client.bin").exists() else "dubbo"
        transport, _, encoding = name.partition("-")
        if self.protocol == "dubbo":
            self.length = dubbo
        else:
            self.length = unframed(encoding) if transport == "unframed" else prefixed
        requests, replies = (self.frames(CORPUS / self.protocol / f"{name}.{side}.bin") for side in ("client", "server"))
        if self.protocol == "dubbo":
            # Heartbeats are answered by the inlet, and READONLY is for the proxy: neither passes.
            by_id = {frame[4:12]: frame for frame in replies}
            self.calls = [(frame, by_id.get(frame[4:12])) for frame in requests if not frame[2] & 0x20]
        else:
            # The third of the calls is one-way, where there is one; see the corpus' README.
            if len(replies) < len(requests):
                replies.insert(2, None)
            self.calls = list(zip(requests, replies, strict=True))

    def frames(self, path: pathlib.Path) -> list[bytes]:
        data, frames = path.read_bytes(), []
        while data:
            length = self.length(data)
            frames.append(data[:length])
            data = data[length:]
        return frames


class Recorder:
    """A server that expects certain frames, keeps what it got, and answers from the capture."""

    def __init__(self):
        self.got, self.expected = queue.Queue(), queue.Queue()
        self.port = Server(self.behave).port

    def behave(self, peer: Peer):
        while True:
            # The first byte of a frame tells that the client has said which it sends.
            first = peer.exactly(1)
            length, reply = self.expected.get(timeout=10)
            self.got.put(first + peer.exactly(length - 1))
            if reply is not None:
                peer.send(reply)


@pytest.mark.feature("frames without a change pass byte for byte, in both modes")
@pytest.mark.parametrize("mode", ["request", "connection"])
@pytest.mark.parametrize("name", CAPTURES)
def test_captured_frames_pass_untouched(world, name, mode):
    capture = Capture(name)
    server, port = Recorder(), free_port()
    world.write("all", service(HOST, port, {server.port: "v1"}, capture.protocol, **{f"meltemi.dev/mode.{port}": mode}))
    world.serve()
    world.envoy(wait_for=[port])
    peer = Peer.connect(port)
    for request, reply in capture.calls:
        server.expected.put((len(request), reply))
        peer.send(request)
        assert server.got.get(timeout=10).hex() == request.hex()
        if reply is not None:
            assert peer.exactly(len(reply)).hex() == reply.hex()
    peer.close()
    world.counted(capture.protocol, {"decode_errors": 0})
