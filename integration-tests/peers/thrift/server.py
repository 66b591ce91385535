"""server.py PORT --version NAME: a real Apache Thrift server that says which one it is."""

import argparse
import sys
import time

from thrift.TMultiplexedProcessor import TMultiplexedProcessor
from thrift.protocol.THeaderProtocol import THeaderProtocolFactory
from thrift.server.TServer import TThreadedServer
from thrift.transport.TSocket import TServerSocket
from thrift.transport.TTransport import TTransportFactoryBase

from common import ALLOWED, PROTO, TRANS
from peer import Demo
from peer.ttypes import Oops, Order


class Impl:
    def __init__(self, version):
        self.version = version

    def hello(self, name):
        return f"{self.version}: hello {name}"

    def place(self, order, quantities, tags):
        return Order(order.id + 1, f"{order.item}{quantities}{tags}", order.price * 2, order.nested)

    def fire(self, what):
        # One write: calls come from several threads.
        sys.stdout.write(f"fire {len(what) if len(what) > 99 else what}\n")
        sys.stdout.flush()

    def fail(self, why):
        raise Oops(why)

    def crash(self, why):
        raise RuntimeError(why)

    def slow(self, millis):
        time.sleep(millis / 1000)
        return f"{self.version}: slept {millis}"


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("port", type=int)
    arguments.add_argument("--address", default="127.0.0.1", help="where to listen")
    arguments.add_argument("--version", default="v1")
    arguments.add_argument("--transport", default="framed", choices=["framed", "unframed", "header"])
    arguments.add_argument("--protocol", default="binary", choices=list(PROTO))
    arguments.add_argument("--multiplexed", action="store_true", help="calls name the service: `Demo`")
    options = arguments.parse_args()
    processor = Demo.Processor(Impl(options.version))
    if options.multiplexed:
        several = TMultiplexedProcessor()
        several.registerProcessor("Demo", processor)
        processor = several
    if options.transport == "header":
        transports, protocols = TTransportFactoryBase(), THeaderProtocolFactory(ALLOWED)
    else:
        transports, protocols = TRANS[options.transport], PROTO[options.protocol]
    socket = TServerSocket(options.address, options.port)
    server = TThreadedServer(processor, socket, transports, protocols, daemon=True)
    print("READY", flush=True)
    server.serve()


main()
