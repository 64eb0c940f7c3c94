"""Where publications go: a tenant and a name, and the name a client may say for it.

A client says `user`, `tenant` or `thread:<id>`. The tenant and the person are never part of what
it says: `named` joins the verified principal to the name, so a channel of somebody else cannot
even be expressed. Inside, the owner stands in the name, percent-encoded so that no id, whatever
characters it is made of, can reach into another owner's names.

Source: WIRE section 5.
"""

from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from towpath.identity import Principal

USER = "user"
"""The client-visible name of a person's own channel."""
TENANT = "tenant"
"""The client-visible name of a tenant's announcements."""
THREAD_PREFIX = "thread:"
"""What the client-visible name of a thread's channel starts with."""
MAX_NAME_BYTES = 255
"""The longest client-visible name, in UTF-8."""


@dataclass(frozen=True, slots=True)
class Channel:
    """One totally ordered sequence of publications.

    Equality and hash are those of `tenant` and `name`; the rest follows from the name and stands
    beside it because delivery looks at it for every write.
    """

    tenant: str
    name: str
    """`user:<user>`, `tenant`, or `thread:<user>:<id>`, the user percent-encoded."""
    owner: str | None = field(init=False, compare=False, repr=False)
    """The one user who may read it; None where the whole tenant may."""
    visible: str = field(init=False, compare=False, repr=False)
    """The name clients say and see."""
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
        """The thread id where this is a thread's channel."""
        return self.visible[len(THREAD_PREFIX) :] if self.is_thread else None


CONTROL = Channel("", "control")
"""What nodes tell each other. No principal has this tenant, so nobody else reads or writes it."""


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
    """Return the channel that `name` means when this principal says it, or None if it means none.

    Existence and rights of a thread are not looked at here: a thread id names a thread of the
    principal's own, whether or not there is one.
    """
    if name == USER:
        return user_channel(principal.tenant, principal.user)
    if name == TENANT:
        return tenant_channel(principal.tenant)
    if name.startswith(THREAD_PREFIX) and is_thread_id(name[len(THREAD_PREFIX) :]):
        return thread_channel(principal.tenant, principal.user, name[len(THREAD_PREFIX) :])
    return None


def is_thread_id(value: str) -> bool:
    """Whether `value` may be a thread's id: one whose channel's name fits on the wire."""
    return is_id(value) and len((THREAD_PREFIX + value).encode()) <= MAX_NAME_BYTES


def is_id(value: str) -> bool:
    """Whether `value` may be an id on the wire: 1 to 128 printable characters."""
    return 1 <= len(value) <= 128 and value.isprintable() and not value.isspace()
