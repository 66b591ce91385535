"""Steady calls from a pod, by a real client in a process of its own."""

import collections
import json
import sys

from harness import PEERS, wait_until


class Steady:
    """Calls from several connections, until it is ended."""

    def __init__(self, pod, address: str, port: int):
        self.pod, self.read = pod, 0
        self.process = pod.start("load", sys.executable, PEERS / "thrift" / "load.py", port, address)
        self.seen = collections.Counter()

    def news(self) -> collections.Counter:
        """Who answered how often since the last look; failures by their text."""
        lines = self.pod.log("load")[self.read:]
        lines = lines[:lines.rfind("\n") + 1]
        self.read += len(lines)
        news = collections.Counter()
        for line in lines.splitlines():
            for answers in json.loads(line).values():
                news.update(answers)
        self.seen += news
        return news

    def more(self, calls: int, seconds=30):
        """Waits for this many calls."""
        wanted = self.seen.total() + calls

        def enough():
            self.news()
            return self.seen.total() >= wanted
        wait_until(enough, f"{calls} more calls", seconds)

    def settles(self, *servers: str, seconds=30):
        """Waits until these and no others answer."""
        def settled():
            return set(self.news()) == set(servers)
        wait_until(settled, f"answers of {servers} alone; seen so far: {self.seen}", seconds)

    def end(self):
        self.pod.end("load")
