"""Channels: the destinations of publications, and the names that clients use for them.

A client names a channel `user`, `tenant` or `thread:<id>`. The tenant and the user are never part
of that name: `named` takes them from the verified principal, so a client cannot name another user's
channel. The internal name contains the owner, percent-encoded, so that no id can collide with
another owner's names.

Source: WIRE section 5.
"""

from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from towpath.identity import Principal

USER = "user"
"""The client-visible name of a person's own channel."""
TENANT = "tenant"
"""The client-visible name of a tenant's channel."""
THREAD_PREFIX = "thread:"
"""The prefix of the client-visible name of a thread's channel."""
MAX_NAME_BYTES = 255
"""The longest client-visible name, in bytes of UTF-8."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One totally ordered sequence of publications.

    Equality and hash use `tenant` and `name` only. The other fields are derived from the name and
    stored, because delivery reads them for every write.
    """

    tenant: str
    name: str
    """`user:<user>`, `tenant`, or `thread:<user>:<id>`, the user percent-encoded."""
    owner: str | None = field(init=False, compare=False, repr=False)
    """The one user who may read it; None if the whole tenant may."""
    visible: str = field(init=False, compare=False, repr=False)
    """The name that clients use."""
    is_thread: bool = field(init=False, compare=False, repr=False)
    """Whether the publications are one thread's run events."""

    def __post_init__(self) -> None:
        kind, _, rest = self.name.partition(":")
        owner, _, thread = rest.partition(":")
        is_thread = kind + ":" == THREAD_PREFIX
        object.__setattr__(self, "owner", unquote(owner) if self.name != TENANT else None)
        object.__setattr__(self, "visible", THREAD_PREFIX + thread if is_thread else kind)
        object.__setattr__(self, "is_thread", is_thread)

    @property
    def thread(self) -> str | None:
        """The thread's id; None if this is not a thread's channel."""
        return self.visible[len(THREAD_PREFIX) :] if self.is_thread else None


CONTROL = Channel("", "control")
"""The channel between nodes. No principal has this tenant, so no client reads or writes it."""


def user_channel(tenant: str, user: str) -> Channel:
    """Return the channel of one person."""
    return Channel(tenant, f"{USER}:{quote(user, safe='')}")


def tenant_channel(tenant: str) -> Channel:
    """Return the channel of a tenant's announcements."""
    return Channel(tenant, TENANT)


def thread_channel(tenant: str, user: str, thread: str) -> Channel:
    """Return the channel of one person's thread."""
    return Channel(tenant, f"{THREAD_PREFIX}{quote(user, safe='')}:{thread}")


def named(name: str, principal: Principal) -> Channel | None:
    """Return the channel that `name` denotes for this principal; None if the name is invalid.

    The existence of a thread is not checked here: a thread id denotes a thread of the principal's
    own, whether or not it exists. Access rights are not checked either.
    """
    if name == USER:
        return user_channel(principal.tenant, principal.user)
    if name == TENANT:
        return tenant_channel(principal.tenant)
    if name.startswith(THREAD_PREFIX) and is_thread_id(name[len(THREAD_PREFIX) :]):
        return thread_channel(principal.tenant, principal.user, name[len(THREAD_PREFIX) :])
    return None


def is_thread_id(value: str) -> bool:
    """Whether `value` is a valid thread id: an id whose channel name has at most 255 bytes."""
    return is_id(value) and len((THREAD_PREFIX + value).encode()) <= MAX_NAME_BYTES


def is_id(value: str) -> bool:
    """Whether `value` is a valid id: 1 to 128 printable characters, not all of them spaces."""
    return 1 <= len(value) <= 128 and value.isprintable() and not value.isspace()
