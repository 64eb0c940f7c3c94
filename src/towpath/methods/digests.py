"""The method of digests: a client reports that it shows another text than the published one."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta, Struct

from towpath.channels import thread_channel
from towpath.delivery.recovery import Recovery
from towpath.errors import BadRequest, NotFound, UnknownChannel
from towpath.events.digest import digest
from towpath.methods.method import Caller, Id, Method, Params, ShortText
from towpath.telemetry import DigestMismatch, Telemetry

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{8}$")]
"""The digest of a text, in the form that the tags of publications use."""


class DigestReport(Params, frozen=True, kw_only=True):
    """Report that the shown text of a message differs from the published text.

    `published` is the digest in the tags of the message, `shown` the digest of the shown text.
    """

    thread_id: Id
    message_id: ShortText
    published: Digest
    shown: Digest


class DigestKept(Struct, frozen=True, kw_only=True):
    """The digest of a message's text as it is kept; null where there is no such message."""

    digest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestMethods:
    """The handler and its dependencies."""

    recovery: Recovery
    telemetry: Telemetry

    async def report(self, caller: Caller, params: DigestReport) -> DigestKept:
        """Count the mismatch; return the digest of the stored text.

        Raises:
            BadRequest: the two digests are the same.
            NotFound: the caller has no such thread.
        """
        if params.published == params.shown:
            raise BadRequest("published and shown are the same")
        kept = await self._digest_kept(caller, params)
        who = caller.principal
        mismatch = DigestMismatch(
            tenant=who.tenant,
            user=who.user,
            thread=params.thread_id,
            message=params.message_id,
            published=params.published,
            shown=params.shown,
            kept=kept,
        )
        self.telemetry.emit(mismatch)
        return DigestKept(digest=kept)

    async def _digest_kept(self, caller: Caller, params: DigestReport) -> str | None:
        who = caller.principal
        channel = thread_channel(who.tenant, who.user, params.thread_id)
        try:
            fold = await self.recovery.fold(channel, who.user)
        except UnknownChannel:
            raise NotFound("no such thread") from None
        text = fold.text(params.message_id) if params.message_id in fold else None
        return digest(text) if text is not None else None


METHODS: tuple[Method[DigestMethods], ...] = (
    Method(
        "digest.report",
        DigestReport,
        DigestKept,
        DigestMethods.report,
        ("POST", "/threads/{thread_id}/digests"),
    ),
)
