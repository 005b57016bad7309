"""Visitors: requests that keep coming while something happens on a front."""

import threading
import time

from front import edition_of


class Load:
    """`with Load(front) as load:` — every request on a connection of its own, as through a load balancer.

    A request counts as lost whatever is wrong with it: no connection, a broken answer, another status, a mixed page.
    """

    def __init__(self, front, visitor, path="/?slow", workers=4):
        self._front, self._visitor, self._path = front, visitor, path
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._visit, daemon=True) for _ in range(workers)]
        self.editions = []
        self.lost = []

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        # Visitors are there before it begins, and still there after it has ended.
        self._wait_for(len(self._threads) * 2)
        return self

    def __exit__(self, *_):
        try:
            self._wait_for(len(self.editions) + len(self.lost) + len(self._threads) * 2)
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(60)

    def _wait_for(self, count):
        end = time.monotonic() + 60
        while len(self.editions) + len(self.lost) < count and time.monotonic() < end:
            time.sleep(0.02)

    def _visit(self):
        while not self._stop.is_set():
            try:
                status, body = self._front.get(self._path, visitor=self._visitor)
                edition = edition_of(status, body)
            except Exception as error:
                with self._lock:
                    self.lost.append(f"{type(error).__name__}: {error}")
                # A front that refuses every connection must not turn this into a busy loop.
                self._stop.wait(0.1)
            else:
                with self._lock:
                    self.editions.append(edition)
