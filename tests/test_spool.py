"""Unacknowledged events: in order, bounded, counted."""

from edge.spool import MemorySpool


def test_messages_stay_in_order_until_they_are_removed() -> None:
    spool = MemorySpool(10)
    for text in "abcd":
        spool.append(text)
    assert spool.after(0, 2) == [(1, "a"), (2, "b")]
    spool.remove(1)
    spool.remove(3)
    spool.remove(3)
    assert spool.after(0, 10) == [(2, "b"), (4, "d")]
    assert spool.after(2, 10) == [(4, "d")]
    assert (len(spool), spool.dropped) == (2, 0)


def test_a_full_spool_drops_its_oldest_and_counts_it() -> None:
    spool = MemorySpool(3)
    for text in "abcde":
        spool.append(text)
    assert [text for _, text in spool.after(0, 10)] == ["c", "d", "e"]
    assert spool.dropped == 2
