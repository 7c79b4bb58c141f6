"""How long the dashboard's server waits for a request: uvicorn alone waits for ever, and for any number of them."""

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 10.0  # from the connection, or the answer before, to the end of a request's head
WAITING_MAX = 200  # connections without one; of more the oldest go. A browser keeps six at most


class PatientProtocol(HttpToolsProtocol):
    """A connection that is closed where no request comes, or where too many others wait for theirs.

    Else whoever reaches the port could hold all descriptors of the process: no password is asked for before a request.
    """

    _waiting: ClassVar["dict[PatientProtocol, asyncio.TimerHandle]"] = {}  # of the process, the oldest first

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Of asyncio."""
        super().connection_made(transport)
        self._wait()

    def on_headers_complete(self) -> None:
        """Of the parser: a request is there."""
        self._wait_no_more()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Of uvicorn: the next may come."""
        super().on_response_complete()
        if self.cycle.response_complete:  # else it came already
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        self._wait_no_more()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._wait_no_more()
        self._waiting[self] = self.loop.call_later(HEAD_S, self.transport.close)
        if len(self._waiting) > WAITING_MAX:
            oldest = next(iter(self._waiting))
            oldest._wait_no_more()
            oldest.transport.close()

    def _wait_no_more(self) -> None:
        if (timer := self._waiting.pop(self, None)) is not None:
            timer.cancel()
