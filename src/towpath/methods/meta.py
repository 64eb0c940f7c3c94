"""The methods about the gateway itself: the caller's principal, and the registered agents."""

from dataclasses import dataclass

from msgspec import Struct

from towpath.agents.agent import AgentRegistry
from towpath.methods.method import Caller, Method, NoParams


class WhoAmI(Struct, frozen=True, kw_only=True):
    """Get the verified identity of the caller."""

    user: str
    tenant: str
    roles: list[str]
    expires_at: float | None
    connection: str | None


class AgentRow(Struct, frozen=True, kw_only=True):
    """A registered agent."""

    name: str
    description: str


class Agents(Struct, frozen=True, kw_only=True):
    """List the agents of this gateway."""

    agents: list[AgentRow]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaMethods:
    """The handlers and their dependency."""

    registry: AgentRegistry

    async def whoami(self, caller: Caller, _: NoParams) -> WhoAmI:
        """Return the caller's principal."""
        who = caller.principal
        return WhoAmI(
            user=who.user,
            tenant=who.tenant,
            roles=sorted(who.roles),
            expires_at=who.expires_at,
            connection=caller.connection,
        )

    async def list_agents(self, caller: Caller, _: NoParams) -> Agents:
        """Return the agents that are registered."""
        rows = [AgentRow(name=item.name, description=item.description) for item in self.registry]
        return Agents(agents=rows)


METHODS: tuple[Method[MetaMethods], ...] = (
    Method("whoami", NoParams, WhoAmI, MetaMethods.whoami, ("GET", "/whoami")),
    Method("agent.list", NoParams, Agents, MetaMethods.list_agents, ("GET", "/agents")),
)
