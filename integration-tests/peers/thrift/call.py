"""call.py PORT [METHOD]: a real Apache Thrift client that makes some calls and says who answered."""

import argparse
import collections

from thrift.Thrift import TApplicationException

from clients import client


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("port", type=int)
    arguments.add_argument("method", nargs="?", default="hello", choices=["hello", "slow"])
    arguments.add_argument("--count", type=int, default=100, help="calls, all on one connection (default 100)")
    arguments.add_argument("--header", action="append", default=[], metavar="NAME=VALUE", help="goes with every call (THeader)")
    options = arguments.parse_args()
    headers = dict(header.split("=", 1) for header in options.header)
    answers = collections.Counter()
    with client(options.port, "header", headers=headers) as demo:
        for _ in range(options.count):
            try:
                # THeader sends a header with one call only.
                for name, value in headers.items():
                    demo.encoding.trans.set_header(name.encode(), value.encode())
                answers[demo.slow(0) if options.method == "slow" else demo.hello("you")] += 1
            except TApplicationException as error:
                answers[f"TApplicationException {error.type}: {error.message}"] += 1
    for answer, count in sorted(answers.items()):
        print(f"{count:4} {answer}")


main()
