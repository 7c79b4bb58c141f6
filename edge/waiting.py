"""Events in memory: until they are on disk, and where there is no disk."""

import itertools
from collections import OrderedDict

from edge.eventfile import Row

BYTES_MAX = 8_000_000  # whatever the settings say: a device has little memory


class Waiting:
    """Rows in order, bounded in number and bytes. Not thread-safe."""

    def __init__(self, count_max: int, bytes_max: float) -> None:
        self._rows: OrderedDict[int, Row] = OrderedDict()
        self._count_max, self._bytes_max = count_max, min(bytes_max, BYTES_MAX)
        self.next = 1
        """The number of the next row."""
        self.bytes = self.overflowed = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, number: int) -> bool:
        return number in self._rows

    def append(self, at: float, topic: str, payload: bytes) -> None:
        """Keep a row behind all others. The oldest go for it where there is no room, and are counted."""
        self._rows[self.next] = Row(self.next, at, topic, payload)
        self.next += 1
        self.bytes += len(payload)
        while len(self._rows) > self._count_max or self.bytes > self._bytes_max:
            self.forget(next(iter(self._rows)))
            self.overflowed += 1

    def forget(self, number: int) -> None:
        """Let go of a row that is here. Raises KeyError for another."""
        self.bytes -= len(self._rows.pop(number).payload)

    def after(self, number: int, limit: int | None = None) -> list[Row]:
        """The oldest `limit` rows whose number is larger than `number`."""
        return list(itertools.islice((row for row in self._rows.values() if row.number > number), limit))

    def move(self, after: int, by: int) -> None:
        """Add to the numbers past `after`, and to those to come."""
        rows = [row._replace(number=row.number + by) if row.number > after else row for row in self._rows.values()]
        self._rows = OrderedDict((row.number, row) for row in rows)
        self.next += by

    def redate(self, seconds: float) -> None:
        """All were kept so much later than was thought."""
        self._rows = OrderedDict((number, row._replace(at=row.at + seconds)) for number, row in self._rows.items())
