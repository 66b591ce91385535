"""Real Apache Thrift clients."""

from contextlib import contextmanager

from thrift.protocol.THeaderProtocol import THeaderProtocol
from thrift.protocol.TMultiplexedProtocol import TMultiplexedProtocol
from thrift.transport.TSocket import TSocket

from common import ALLOWED, PROTO, SUB, TRANS, ZLIB
from peer import Demo


@contextmanager
def client(port, transport="framed", protocol="binary", zlib=False, headers=None, timeout=20_000,
           address="127.0.0.1", service=None):
    """A client of the service `Demo`; `headers` go with every call where the transport has them, the name of the `service` with
    calls to a multiplexed server."""
    socket = TSocket(address, port)
    socket.setTimeout(timeout)
    if transport == "header":
        encoding = THeaderProtocol(socket, ALLOWED, default_protocol=SUB[protocol])
        if zlib:
            encoding.add_transform(ZLIB)
        outer = encoding.trans
        for name, value in (headers or {}).items():
            encoding.trans.set_header(name.encode(), value.encode())
    else:
        outer = TRANS[transport].getTransport(socket)
        encoding = PROTO[protocol].getProtocol(outer)
    outer.open()
    try:
        result = Demo.Client(TMultiplexedProtocol(encoding, service) if service else encoding)
        result.encoding = encoding
        yield result
    finally:
        outer.close()
