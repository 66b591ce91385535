"""Makes the files of this folder that no capture gave; needs PyPI `thrift`. Run it here.

`ttheader-*`: messages by Apache Thrift, the header around them by the public description of CloudWeGo
(https://www.cloudwego.io/docs/kitex/reference/transport-protocol-ttheader/), not by the code under test.
`header-numbers`: THeader frames whose number is not that of their message; the answers are Apache Thrift's.
"""

import struct

from thrift.protocol import TBinaryProtocol, TCompactProtocol, THeaderProtocol
from thrift.Thrift import TApplicationException, TMessageType, TType
from thrift.transport import TTransport

CALL, REPLY, EXCEPTION, ONEWAY = TMessageType.CALL, TMessageType.REPLY, TMessageType.EXCEPTION, TMessageType.ONEWAY


def fields(protocol, *values):
    """A struct of texts and lists of texts, by field id."""
    protocol.writeStructBegin("s")
    for number, value in values:
        if isinstance(value, str):
            protocol.writeFieldBegin("f", TType.STRING, number)
            protocol.writeString(value)
        else:
            protocol.writeFieldBegin("f", TType.LIST, number)
            protocol.writeListBegin(TType.STRING, len(value))
            for text in value:
                protocol.writeString(text)
            protocol.writeListEnd()
        protocol.writeFieldEnd()
    protocol.writeFieldStop()
    protocol.writeStructEnd()


def write(protocol, name, kind, number, *values):
    protocol.writeMessageBegin(name, kind, number)
    if kind == EXCEPTION:
        TApplicationException(TApplicationException.INTERNAL_ERROR, "broken").write(protocol)
    else:
        fields(protocol, *values)
    protocol.writeMessageEnd()


def message(factory, *arguments):
    buffer = TTransport.TMemoryBuffer()
    write(factory.getProtocol(buffer), *arguments)
    return buffer.getvalue()


def text(value):
    raw = value.encode()
    return struct.pack(">H", len(raw)) + raw


def ttheader(sequence, protocol, payload, strings=(), integers=(), token=None, framed=True):
    infos = bytes([protocol, 0])
    if integers:
        infos += b"\x10" + struct.pack(">H", len(integers))
        infos += b"".join(struct.pack(">H", key) + text(value) for key, value in integers)
    if strings:
        infos += b"\x01" + struct.pack(">H", len(strings))
        infos += b"".join(text(key) + text(value) for key, value in strings)
    if token:
        infos += b"\x11" + text(token)
    infos += bytes(-len(infos) % 4)
    if framed:
        payload = struct.pack(">I", len(payload)) + payload
    rest = struct.pack(">HHIH", 0x1000, 0, sequence, len(infos) // 4) + infos + payload
    return struct.pack(">I", len(rest)) + rest


def ttheaders(name, protocol, factory, framed):
    known = [(3, "peer.client"), (6, "peer.demo"), (9, "hello"), (12, "3000")]
    strings = [("isn", "Demo"), ("env", "gray"), ("RPC_PERSIST_user", "u1")]
    calls, replies = b"", b""
    for number, (method, kind, answer) in enumerate(
        [("hello", CALL, REPLY), ("place", CALL, REPLY), ("fire", ONEWAY, None), ("fail", CALL, "declared"), ("crash", CALL, EXCEPTION)], 1
    ):
        payload = message(factory, method, kind, number, (1, "world"), (2, ["a", "b"] * number))
        calls += ttheader(number, protocol, payload, strings, known, "secret", framed)
        if answer:
            result = (1, "no") if answer == "declared" else (0, "hi")
            kind = EXCEPTION if answer == EXCEPTION else REPLY
            payload = message(factory, method, kind, number, result)
            replies += ttheader(number, protocol, payload, [("served-by", "p1")], [(22, str(kind))], None, framed)
    open(f"{name}.client.bin", "wb").write(calls)
    open(f"{name}.server.bin", "wb").write(replies)


def header_numbers():
    kinds = range(4)
    calls, replies = b"", b""
    for outer, inner in [(9, 7), (0, 3), (3, 0)]:
        buffer = TTransport.TMemoryBuffer()
        client = THeaderProtocol.THeaderProtocol(buffer, kinds)
        client.trans.set_header(b"env", b"gray")
        write(client, "hello", CALL, inner, (1, "world"))
        client.trans.sequence_id = outer
        client.trans.flush()
        calls += buffer.getvalue()
        incoming, outgoing = TTransport.TMemoryBuffer(buffer.getvalue()), TTransport.TMemoryBuffer()
        server = THeaderProtocol.THeaderProtocol(incoming, kinds)
        name, _, number = server.readMessageBegin()
        server.trans._transport = outgoing
        write(server, name, REPLY, number, (0, "hi"))
        server.trans.flush()
        replies += outgoing.getvalue()
    open("header-numbers.client.bin", "wb").write(calls)
    open("header-numbers.server.bin", "wb").write(replies)


ttheaders("ttheader-binary", 0, TBinaryProtocol.TBinaryProtocolFactory(), True)
ttheaders("ttheader-binary-bare", 0, TBinaryProtocol.TBinaryProtocolFactory(), False)
ttheaders("ttheader-compact", 2, TCompactProtocol.TCompactProtocolFactory(), True)
header_numbers()
