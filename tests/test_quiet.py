"""Standard error is silent while a library talks, and comes back: also when two threads ask for silence at once."""

import os
import threading

from conftest import PATIENCE_S
from edge.quiet import silent_stderr


def test_what_is_written_meanwhile_is_not_seen_and_standard_error_comes_back(capfd) -> None:
    with silent_stderr(), silent_stderr():
        os.write(2, b"talk")
    os.write(2, b"news")
    assert capfd.readouterr().err == "news"


def test_two_threads_that_overlap_leave_standard_error_as_it_was(capfd) -> None:
    second_is_in, first_is_out = threading.Event(), threading.Event()

    def second() -> None:
        with silent_stderr():
            second_is_in.set()
            first_is_out.wait(PATIENCE_S)

    thread = threading.Thread(target=second)
    with silent_stderr():
        thread.start()
        second_is_in.wait(0.3)  # it comes in now, or waits until we are out
    first_is_out.set()
    thread.join()
    os.write(2, b"news")
    assert capfd.readouterr().err == "news"
