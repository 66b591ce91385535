"""load.py PORT [ADDRESS]: steady calls with THeader from several connections. Every 200 ms a line of JSON: calls by kind, by who answered."""

import collections
import json
import sys
import threading
import time

from thrift.Thrift import TApplicationException

from clients import client

WORKERS = 4
WINDOW = 0.2


class Counter:
    def __init__(self):
        self.lock, self.counts = threading.Lock(), {}

    def add(self, kind, answer):
        with self.lock:
            self.counts.setdefault(kind, collections.Counter())[answer] += 1

    def take(self):
        with self.lock:
            counts, self.counts = self.counts, {}
            return counts


def work(port, address, counter):
    while True:
        try:
            with client(port, "header", address=address) as demo:
                headers = demo.encoding.trans
                while True:
                    for kind in ("hello", "hello", "hello", "gray", "slow"):
                        if kind == "gray":
                            headers.set_header(b"env", b"gray")
                        try:
                            answer = demo.slow(0) if kind == "slow" else demo.hello("x")
                            counter.add(kind, answer.split(":")[0])
                        except TApplicationException as error:
                            counter.add(kind, f"TApplicationException {error.type}: {error.message}")
                    time.sleep(0.002)
        except Exception as error:
            counter.add("connection", f"{type(error).__name__}: {error}")
            time.sleep(0.1)


def main():
    counter = Counter()
    address = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1"
    for _ in range(WORKERS):
        threading.Thread(target=work, args=(int(sys.argv[1]), address, counter), daemon=True).start()
    while True:
        time.sleep(WINDOW)
        print(json.dumps(counter.take()), flush=True)


main()
