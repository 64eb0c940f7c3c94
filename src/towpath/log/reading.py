"""The rules of a read that every engine obeys: which offsets it covers, and where it stops.

No I/O, no time.
"""

from collections.abc import Iterable

from towpath.log.broker import Publication


def span_of(after: int | None, top: int, begins: int, *, reverse: bool) -> range | None:
    """Return the offsets that a read returns, in rising order; None if the position is `gone`.

    Args:
        after: the offset that the reader passed; see `Read`.
        top: the offset of the channel's last publication.
        begins: the offset of the oldest publication that is kept.
        reverse: whether the read goes downwards.
    """
    if after is None:
        return range(begins, top + 1)
    if reverse:
        return range(begins, max(after, begins)) if after <= top + 1 else None
    return range(after + 1, top + 1) if begins - 1 <= after <= top else None


def take(
    publications: Iterable[Publication], limit: int | None, max_bytes: int | None
) -> tuple[list[Publication], bool]:
    """Return the first publications within the bounds of a `Read`, and whether a bound ended it.

    Nothing is taken from `publications` once the limit is reached, and only one publication beyond
    `max_bytes`: an engine may make them one by one.
    """
    taken: list[Publication] = []
    size = 0
    if limit == 0:
        return taken, True
    for publication in publications:
        size += len(publication.data)
        if taken and max_bytes is not None and size > max_bytes:
            return taken, True
        taken.append(publication)
        if len(taken) == limit:
            return taken, True
    return taken, False
