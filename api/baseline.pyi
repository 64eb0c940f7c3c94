"""The public API of the last release; `make api` writes this file. See tools/api.py."""

# module towpath
class AgentError(TowpathError):
    def __init__(self, message: str, *, code: str = codes.AGENT_FAILED) -> None: ...
    def __str__(self) -> str: ...
    code = ...
    message = ...
class AgentInput:
    def __init__(
        self,
        *,
        context: UserExecutionContext,
        message: str,
        messages: list[Message],
        state: Any = None,
        tools: list[Mapping[str, Any]] = list(),
        client_context: list[Mapping[str, Any]] = list(),
        forwarded_props: Any = None,
        resume: list[Mapping[str, Any]] = list(),
    ) -> None: ...
    client_context: list[Mapping[str, Any]]
    context: UserExecutionContext
    forwarded_props: Any
    message: str
    messages: list[Message]
    resume: list[Mapping[str, Any]]
    state: Any
    tools: list[Mapping[str, Any]]
class AgentWebSocketBridge(View):
    def __init__(
        self,
        context: UserExecutionContext | None = None,
        *,
        tenant: str | None = None,
        gateway: HasNode | None = None,
    ) -> None: ...
    __slots__ = ...
    async def approve(
        self,
        run_id: str,
        interrupt_id: str,
        decision: str,
        *,
        payload: Any = None,
        digest: str | None = None,
        key: str | None = None,
        user_id: str | None = None,
    ) -> Decided: ...
    async def cancel_run(self, run_id: str, *, user_id: str | None = None) -> str: ...
    context = ...
    async def emit_agent_event(
        self,
        run_id: str,
        event_type: str,
        data: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        user_id: str | None = None,
    ) -> SendResult: ...
    def get_health(self) -> BridgeHealth: ...
    async def get_run_status(
        self,
        run_id: str,
        *,
        user_id: str | None = None,
    ) -> RunStatus | None: ...
    async def get_thread_id(self, run_id: str, *, user_id: str | None = None) -> str | None: ...
    async def notify_agent_completed(
        self,
        run_id: str,
        result: object = None,
        *,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_agent_error(
        self,
        run_id: str,
        message: str,
        *,
        code: str | None = None,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_agent_started(
        self,
        run_id: str | None,
        agent_name: str,
        message: str,
        *,
        thread_id: str | None = None,
        user_id: str | None = None,
    ) -> StartedRun | Refused: ...
    async def notify_agent_text(
        self,
        run_id: str,
        text: str,
        *,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_agent_thinking(
        self,
        run_id: str,
        text: str,
        *,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_custom(
        self,
        run_id: str,
        name: str,
        value: object,
        *,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_progress_update(
        self,
        run_id: str,
        progress: float | None = None,
        message: str | None = None,
        *,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_tool_completed(
        self,
        run_id: str,
        tool_name: str,
        result: object = '',
        *,
        tool_call_id: str | None = None,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_tool_executing(
        self,
        run_id: str,
        tool_name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        tool_call_id: str | None = None,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def start_run(
        self,
        agent: str,
        message: str | None = None,
        *,
        thread_id: str | None = None,
        input: Mapping[str, Any] | None = None,
        key: str | None = None,
        user_id: str | None = None,
    ) -> StartedRun | Refused: ...
    tenant: str
class CircuitBreaker:
    def __init__(
        self,
        name: str,
        *,
        failure_threshold: int = 3,
        reset_timeout: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
        watch: Watch = lambda *_: None,
    ) -> None: ...
    def admit(self) -> Permit: ...
    failure_count = ...
    failure_threshold = ...
    last_failure_time: float | None
    name = ...
    def record_failure(self) -> None: ...
    reset_timeout = ...
    retry_after: float
    state = ...
    def tell(self, move: Transition, generation: int) -> None: ...
class Delivered:
    def __init__(self, position: Position, connections: int) -> None: ...
    connections: int
    position: Position
class Gateway:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...
    def __init__(self, settings: Settings | None = None) -> None: ...
    def add_observer(self, observer: Observer) -> None: ...
    def agent(
        self,
        name: str,
        *,
        deadline: float | None = None,
        double_texting: DoubleTextingName = 'reject',
    ) -> Callable[[F], F]: ...
    def agent_exited(self, key: RunKey | None, error: BaseException) -> None: ...
    agents = ...
    auth: ConnectionAuth
    async def cancel_run(self, context: UserExecutionContext, run_id: str) -> str: ...
    def demo_token(self, user: str, tenant: str = DEMO_TENANT, ttl: float = 3600.0) -> str: ...
    demo_users: tuple[str, ...]
    async def disconnect(
        self,
        context: UserExecutionContext,
        *,
        code: int = FORCED.number,
        reason: str | None = None,
    ) -> int: ...
    async def drain(self) -> None: ...
    async def lifespan(self, _: Any = None) -> AsyncGenerator[None, None]: ...
    metrics = ...
    def mount(self, app: Starlette, path: str) -> None: ...
    node: Node | None
    async def notify(
        self,
        context: UserExecutionContext,
        value: object,
        *,
        name: str = 'message',
        key: str | None = None,
    ) -> SendResult: ...
    phase: Phase
    portal = ...
    settings = ...
    async def start_run(
        self,
        context: UserExecutionContext,
        agent: str,
        message: str | None = None,
        *,
        input: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> StartedRun | Refused: ...
    def use_development_key(self, host: str) -> None: ...
    def watch(self, observer: Observer) -> None: ...
class Principal:
    def __init__(
        self,
        *,
        tenant: str,
        user: str,
        roles: frozenset[str] = frozenset(),
        expires_at: float | None = None,
        token_id: str | None = None,
        issued_at: float | None = None,
        issuer: str | None = None,
    ) -> None: ...
    expires_at: float | None
    issued_at: float | None
    issuer: str | None
    roles: frozenset[str]
    def same_person(self, other: Principal) -> bool: ...
    tenant: str
    token_id: str | None
    user: str
class Queued:
    def __init__(self, position: Position) -> None: ...
    position: Position
class Refused:
    def __init__(self, reason: str) -> None: ...
    reason: str
class Settings(TimeoutSettings, LimitSettings, ModelSettings, RunSettings, AuthSettings, StorageSettings, BaseSettings):
    def __init__(
        self,
        *,
        allowed_origins: frozenset[str] = frozenset(),
        auth_attempts: int = Field(default=3, gt=0),
        auth_timeout: float = Field(default=2.5, gt=0, le=3),
        backlog_bytes: int = Field(default=BACKLOG_BYTES, gt=0),
        breaker_failures: int = Field(default=3, gt=0),
        breaker_reset: float = Field(default=15.0, gt=0),
        ca_file: Path | None = None,
        cleanup_timeout: float = Field(default=5.0, gt=0),
        close_timeout: float = Field(default=2.0, gt=0),
        commands_burst: int = Field(default=512, gt=0),
        commands_per_second: float = Field(default=50.0, gt=0),
        connect_timeout: float = Field(default=5.0, gt=0),
        data: Directory = DEFAULT_DATA,
        drain_timeout: float = Field(default=8.0, gt=0),
        early_message_bytes: int = Field(default=64 * 1024, gt=0),
        errors: int = Field(default=100, gt=0),
        expiry_grace: float = Field(default=25.0, ge=0),
        failures_burst: int = Field(default=200, gt=0),
        failures_per_second: float = Field(default=10.0, gt=0),
        interrupt_timeout: float = Field(default=24 * 3600.0, gt=0),
        issuers: tuple[IssuerSettings, ...] = (),
        jwks_url: str | None = None,
        jwt_algorithm: str | None = None,
        jwt_audience: str | None = None,
        jwt_issuer: str | None = None,
        jwt_key: OptionalSecret = NOT_SET,
        keep_raw: bool = False,
        keys_cooldown: float = Field(default=10.0, gt=0),
        keys_fresh: float = Field(default=300.0, gt=0),
        keys_stale: float = Field(default=3600.0, ge=0),
        keys_timeout: float = Field(default=1.0, gt=0),
        limited_delay: float = Field(default=1.0, ge=0, le=2),
        message_bytes: int = Field(default=1024 * 1024, gt=0),
        model: str | None = None,
        model_tokens: int | None = Field(default=None, gt=0),
        openai_api_key: OptionalSecret = Field(default=NOT_SET, validation_alias='OPENAI_API_KEY'),
        openai_base_url: str | None = Field(default=None, validation_alias='OPENAI_BASE_URL'),
        outage_grace: float = Field(default=900.0, ge=0),
        outbox_bytes: int = Field(default=4 * 1024 * 1024, gt=0),
        ping_interval: float = Field(default=25.0, gt=0),
        pong_timeout: float = Field(default=10.0, gt=0),
        ready_timeout: float = Field(default=2.0, gt=0),
        repeats_burst: int = Field(default=20, gt=0),
        repeats_per_second: float = Field(default=0.5, gt=0),
        reserve_bytes: int = Field(default=16 * 1024 * 1024, ge=0),
        roles_claim: str = 'roles',
        run_bytes: int = Field(default=64 * 1024 * 1024, gt=0),
        run_deadline: float = Field(default=600.0, gt=0),
        run_lease: float = Field(default=15.0, ge=1),
        run_message_bytes: int = Field(default=256 * 1024, gt=0),
        runs_burst: int = Field(default=60, gt=0),
        runs_per_second: float = Field(default=1.0, gt=0),
        server_subscriptions: tuple[str, ...] = ('user', 'tenant'),
        slow_timeout: float = Field(default=30.0, gt=0),
        snapshot_max_bytes: int = Field(default=1024 * 1024, gt=0),
        subscriptions: int = Field(default=128, gt=0),
        synchronous: str = Field(default='NORMAL', pattern='^(NORMAL|FULL)$'),
        tenant: str | None = None,
        tenant_claim: str | None = None,
        tenant_connections: int = Field(default=10000, gt=0),
        trusted_proxies: frozenset[str] = frozenset(),
        user_connections: int = Field(default=20, gt=0),
        verdict_seconds: float = Field(default=300.0, gt=0),
        waiting_bytes: int = Field(default=64 * 1024, gt=0),
        waiting_commands: int = Field(default=256, gt=0),
    ) -> None: ...
    allowed_origins: frozenset[str]
    auth_attempts: int
    auth_timeout: float
    backlog_bytes: int
    breaker_failures: int
    breaker_reset: float
    ca_file: Path | None
    cleanup_timeout: float
    close_timeout: float
    commands_burst: int
    commands_per_second: float
    connect_timeout: float
    data: Directory
    drain_timeout: float
    early_message_bytes: int
    errors: int
    expiry_grace: float
    failures_burst: int
    failures_per_second: float
    interrupt_timeout: float
    issuers: tuple[IssuerSettings, ...]
    jwks_url: str | None
    jwt_algorithm: str | None
    jwt_audience: str | None
    jwt_issuer: str | None
    jwt_key: OptionalSecret
    keep_raw: bool
    keys_cooldown: float
    keys_fresh: float
    keys_stale: float
    keys_timeout: float
    limited_delay: float
    message_bytes: int
    model: str | None
    model_config = ...
    model_tokens: int | None
    openai_api_key: OptionalSecret
    openai_base_url: str | None
    outage_grace: float
    outbox_bytes: int
    ping_interval: float
    pong_timeout: float
    ready_timeout: float
    repeats_burst: int
    repeats_per_second: float
    reserve_bytes: int
    roles_claim: str
    run_bytes: int
    run_deadline: float
    run_lease: float
    run_message_bytes: int
    runs_burst: int
    runs_per_second: float
    server_subscriptions: tuple[str, ...]
    slow_timeout: float
    snapshot_max_bytes: int
    subscriptions: int
    synchronous: str
    tenant: str | None
    tenant_claim: str | None
    tenant_connections: int
    trusted_proxies: frozenset[str]
    user_connections: int
    verdict_seconds: float
    waiting_bytes: int
    waiting_commands: int
class UnifiedAuthenticationService:
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def __init__(
        self,
        issuers: Sequence[TrustedIssuer],
        *,
        cache: VerdictCache,
        tickets: Tickets,
        revocations: Revocations,
        verdicts: SingleFlight[Digest, Verdict],
        fetches: SingleFlight[str, None],
        monotonic: Callable[[], float],
        now: Callable[[], float],
        random: Callable[[], float],
        retry: Retry | None = None,
    ) -> None: ...
    def apply(self, revocation: Revocation) -> bool: ...
    async def authenticate(self, credential: str, *, origin: str | None = None) -> Judged: ...
    cache = ...
    cold: list[str]
    def hear(self, revocation: Revocation) -> bool: ...
    def in_outage(self, principal: Principal) -> bool: ...
    def issuer(self, name: str | None = None) -> TrustedIssuer: ...
    issuers = ...
    async def keep_fresh(self) -> None: ...
    def probe(self, principal: Principal) -> None: ...
    def remembers(self, credential: str) -> bool: ...
    retry = ...
    revocations = ...
    tickets = ...
    under_way: int
    async def warm(self) -> None: ...
class UnifiedWebSocketAuth:
    def __init__(
        self,
        service: AuthService,
        *,
        telemetry: Telemetry,
        monotonic: Callable[[], float],
        now: Callable[[], float],
        grace: Grace | None = None,
        source_failures: Rate | None = None,
        credential_failures: Rate | None = None,
        limited_delay: float = 0.0,
    ) -> None: ...
    def auth_state(self, issuer: str | None = None) -> dict[str, Any]: ...
    async def authenticate_request(self, handshake: UpgradeInfo) -> Authenticated | Refused: ...
    async def authenticate_websocket_connection(
        self,
        connect_token: str,
        handshake: UpgradeInfo,
        *,
        connection: str,
    ) -> Authenticated | Refused: ...
    def expires_at(self, principal: Principal) -> float | None: ...
    def held_until(self, principal: Principal) -> float | None: ...
    def lapsed(self, principal: Principal) -> None: ...
    async def refresh(
        self,
        principal: Principal,
        token: str,
        handshake: UpgradeInfo,
        *,
        connection: str,
    ) -> Authenticated | Refused: ...
    service = ...
class UserExecutionContext:
    def __init__(
        self,
        *,
        tenant: str,
        user: str,
        thread: str | None = None,
        run: str | None = None,
        request: str = (lambda: uuid.uuid4().hex)(),
        connection: str | None = None,
        created: datetime = (lambda: datetime.now(UTC))(),
        expires: datetime | None = None,
        roles: frozenset[str] = frozenset(),
        depth: int = 0,
        verified: bool = False,
    ) -> None: ...
    connection: str | None
    def create_child_context(
        self,
        *,
        thread: str | None = None,
        run: str | None = None,
    ) -> UserExecutionContext: ...
    created: datetime
    depth: int
    expires: datetime | None
    def get_scoped_key(self, key: str) -> str: ...
    @classmethod
    def of(
        cls,
        principal: Principal,
        *,
        thread: str | None = None,
        run: str | None = None,
        connection: str | None = None,
    ) -> UserExecutionContext: ...
    request: str
    roles: frozenset[str]
    run: str | None
    tenant: str
    thread: str | None
    def to_dict(self) -> dict[str, Any]: ...
    user: str
    verified: bool
    def verify_isolation(self, other: UserExecutionContext) -> bool: ...
class WebSocketManager(Connections):
    def __init__(
        self,
        context: UserExecutionContext | None = None,
        *,
        tenant: str | None = None,
        gateway: HasNode | None = None,
    ) -> None: ...
    __slots__ = ...
    async def add_connection(
        self,
        user_id: str,
        websocket: WebSocket,
        *,
        connection_id: str | None = None,
    ) -> str | Refused: ...
    async def add_connection_by_user(
        self,
        user_id: str,
        websocket: WebSocket,
        *,
        connection_id: str | None = None,
    ) -> str | Refused: ...
    async def attempt_message_recovery(
        self,
        user_id: str,
        since: Position | None = None,
        *,
        limit: int = RECOVERY_LIMIT,
    ) -> RecoveredMessages: ...
    async def broadcast(
        self,
        message: object,
        *,
        name: str = 'message',
        key: str | None = None,
    ) -> SendResult: ...
    async def broadcast_message(
        self,
        message: object,
        *,
        name: str = 'message',
        key: str | None = None,
    ) -> SendResult: ...
    async def connect_to_job(self, user_id: str, job_id: str) -> JobEvents: ...
    async def connect_user(
        self,
        user_id: str,
        websocket: WebSocket,
        *,
        connection_id: str | None = None,
    ) -> ConnectionEnded | Refused: ...
    context = ...
    async def disconnect_from_job(self, job: JobEvents) -> None: ...
    async def disconnect_user(
        self,
        user_id: str,
        *,
        code: int = codes.FORCED.number,
        reason: str | None = None,
    ) -> int: ...
    async def emit_critical_event(
        self,
        user_id: str,
        event_type: str,
        data: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
    ) -> SendResult: ...
    def find_connection(
        self,
        user_id: str,
        *,
        thread_id: str | None = None,
    ) -> ConnectionInfo | None: ...
    async def force_cleanup_user_events(self, user_id: str) -> int: ...
    def get_connection(self, connection_id: str) -> ConnectionInfo | None: ...
    def get_connection_count(self, user_id: str | None = None) -> int: ...
    def get_connection_health(self, user_id: str) -> ConnectionHealth: ...
    def get_connection_id_by_websocket(self, websocket: WebSocket) -> str | None: ...
    def get_user_connections(self, user_id: str) -> list[ConnectionInfo]: ...
    async def handle_connection(self, connection_id: str) -> ConnectionEnded | None: ...
    async def handle_disconnection(
        self,
        connection_id: str,
        *,
        code: int = codes.FORCED.number,
        reason: str | None = None,
    ) -> bool: ...
    async def handle_message(self, user_id: str, message: Mapping[str, Any]) -> Any: ...
    def is_connection_active(self, connection_id: str) -> bool: ...
    def is_user_connected(self, user_id: str) -> bool: ...
    async def remove_connection(
        self,
        connection_id: str,
        *,
        code: int = codes.FORCED.number,
        reason: str | None = None,
    ) -> bool: ...
    async def remove_connection_by_user(
        self,
        user_id: str,
        *,
        code: int = codes.FORCED.number,
        reason: str | None = None,
    ) -> int: ...
    async def send_agent_event(
        self,
        user_id: str,
        event_type: str,
        data: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
    ) -> SendResult: ...
    async def send_to_thread(
        self,
        thread_id: str,
        message: object,
        *,
        user_id: str | None = None,
        name: str = 'message',
        key: str | None = None,
    ) -> SendResult: ...
    async def send_to_user(
        self,
        user_id: str,
        message: object,
        *,
        name: str = 'message',
        key: str | None = None,
    ) -> SendResult: ...
    async def send_to_user_with_wait(
        self,
        user_id: str,
        message: object,
        *,
        wait_timeout: float = WAIT_SECONDS,
        name: str = 'message',
        key: str | None = None,
    ) -> SendResult: ...
    tenant: str
    def update_connection_thread(self, connection_id: str, thread_id: str | None) -> bool: ...
    async def wait_for_connection(self, user_id: str, timeout: float = WAIT_SECONDS) -> bool: ...
__version__ = ...
def create_websocket_manager(
    context: UserExecutionContext | None = None,
    *,
    tenant: str | None = None,
    gateway: HasNode | None = None,
) -> WebSocketManager: ...
async def get_websocket_manager(
    context: UserExecutionContext | None = None,
    *,
    tenant: str | None = None,
    gateway: HasNode | None = None,
) -> WebSocketManager: ...

# module towpath.agents.adapters.pydantic_ai
def from_pydantic_ai(
    agent: AbstractAgent[Deps, Any],
    *,
    deps: Callable[[AgentInput], Deps] | None = None,
) -> AgentFunction: ...

# module towpath.agents.bridge
class AgentWebSocketBridge(View):
    def __init__(
        self,
        context: UserExecutionContext | None = None,
        *,
        tenant: str | None = None,
        gateway: HasNode | None = None,
    ) -> None: ...
    __slots__ = ...
    async def approve(
        self,
        run_id: str,
        interrupt_id: str,
        decision: str,
        *,
        payload: Any = None,
        digest: str | None = None,
        key: str | None = None,
        user_id: str | None = None,
    ) -> Decided: ...
    async def cancel_run(self, run_id: str, *, user_id: str | None = None) -> str: ...
    context = ...
    async def emit_agent_event(
        self,
        run_id: str,
        event_type: str,
        data: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        user_id: str | None = None,
    ) -> SendResult: ...
    def get_health(self) -> BridgeHealth: ...
    async def get_run_status(
        self,
        run_id: str,
        *,
        user_id: str | None = None,
    ) -> RunStatus | None: ...
    async def get_thread_id(self, run_id: str, *, user_id: str | None = None) -> str | None: ...
    async def notify_agent_completed(
        self,
        run_id: str,
        result: object = None,
        *,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_agent_error(
        self,
        run_id: str,
        message: str,
        *,
        code: str | None = None,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_agent_started(
        self,
        run_id: str | None,
        agent_name: str,
        message: str,
        *,
        thread_id: str | None = None,
        user_id: str | None = None,
    ) -> StartedRun | Refused: ...
    async def notify_agent_text(
        self,
        run_id: str,
        text: str,
        *,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_agent_thinking(
        self,
        run_id: str,
        text: str,
        *,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_custom(
        self,
        run_id: str,
        name: str,
        value: object,
        *,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_progress_update(
        self,
        run_id: str,
        progress: float | None = None,
        message: str | None = None,
        *,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_tool_completed(
        self,
        run_id: str,
        tool_name: str,
        result: object = '',
        *,
        tool_call_id: str | None = None,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_tool_executing(
        self,
        run_id: str,
        tool_name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        tool_call_id: str | None = None,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def start_run(
        self,
        agent: str,
        message: str | None = None,
        *,
        thread_id: str | None = None,
        input: Mapping[str, Any] | None = None,
        key: str | None = None,
        user_id: str | None = None,
    ) -> StartedRun | Refused: ...
    tenant: str

# module towpath.agents.registry
class AgentError(TowpathError):
    def __init__(self, message: str, *, code: str = codes.AGENT_FAILED) -> None: ...
    def __str__(self) -> str: ...
    code = ...
    message = ...
class AgentInput:
    def __init__(
        self,
        *,
        context: UserExecutionContext,
        message: str,
        messages: list[Message],
        state: Any = None,
        tools: list[Mapping[str, Any]] = list(),
        client_context: list[Mapping[str, Any]] = list(),
        forwarded_props: Any = None,
        resume: list[Mapping[str, Any]] = list(),
    ) -> None: ...
    client_context: list[Mapping[str, Any]]
    context: UserExecutionContext
    forwarded_props: Any
    message: str
    messages: list[Message]
    resume: list[Mapping[str, Any]]
    state: Any
    tools: list[Mapping[str, Any]]

# module towpath.agents.run
class AgentError(TowpathError):
    def __init__(self, message: str, *, code: str = codes.AGENT_FAILED) -> None: ...
    def __str__(self) -> str: ...
    code = ...
    message = ...

# module towpath.auth.breaker
class BreakerOpen(TowpathError):
    def __init__(self, name: str, retry_after: float) -> None: ...
    def __str__(self) -> str: ...
    name = ...
    retry_after = ...

# module towpath.auth.service
class Verifier(Protocol):
    def takes(self, credential: str) -> bool: ...
    async def verify(self, credential: str, now: float) -> Verdict: ...

# module towpath.auth.verdicts
class Invalid:
    def __init__(
        self,
        reason: str,
        expired: bool = False,
        revoked: bool = False,
        passing: bool = False,
    ) -> None: ...
    expired: bool
    passing: bool
    reason: str
    revoked: bool
class Unknown:
    def __init__(self, reason: str, retry_after: float = 0.0, suspect: bool = False) -> None: ...
    reason: str
    retry_after: float
    suspect: bool
class Valid:
    def __init__(self, principal: Principal) -> None: ...
    principal: Principal
Verdict = ...

# module towpath.auth.websocket
class UnifiedWebSocketAuth:
    def __init__(
        self,
        service: AuthService,
        *,
        telemetry: Telemetry,
        monotonic: Callable[[], float],
        now: Callable[[], float],
        grace: Grace | None = None,
        source_failures: Rate | None = None,
        credential_failures: Rate | None = None,
        limited_delay: float = 0.0,
    ) -> None: ...
    def auth_state(self, issuer: str | None = None) -> dict[str, Any]: ...
    async def authenticate_request(self, handshake: UpgradeInfo) -> Authenticated | Refused: ...
    async def authenticate_websocket_connection(
        self,
        connect_token: str,
        handshake: UpgradeInfo,
        *,
        connection: str,
    ) -> Authenticated | Refused: ...
    def expires_at(self, principal: Principal) -> float | None: ...
    def held_until(self, principal: Principal) -> float | None: ...
    def lapsed(self, principal: Principal) -> None: ...
    async def refresh(
        self,
        principal: Principal,
        token: str,
        handshake: UpgradeInfo,
        *,
        connection: str,
    ) -> Authenticated | Refused: ...
    service = ...

# module towpath.context
class Principal:
    def __init__(
        self,
        *,
        tenant: str,
        user: str,
        roles: frozenset[str] = frozenset(),
        expires_at: float | None = None,
        token_id: str | None = None,
        issued_at: float | None = None,
        issuer: str | None = None,
    ) -> None: ...
    expires_at: float | None
    issued_at: float | None
    issuer: str | None
    roles: frozenset[str]
    def same_person(self, other: Principal) -> bool: ...
    tenant: str
    token_id: str | None
    user: str
class UserExecutionContext:
    def __init__(
        self,
        *,
        tenant: str,
        user: str,
        thread: str | None = None,
        run: str | None = None,
        request: str = (lambda: uuid.uuid4().hex)(),
        connection: str | None = None,
        created: datetime = (lambda: datetime.now(UTC))(),
        expires: datetime | None = None,
        roles: frozenset[str] = frozenset(),
        depth: int = 0,
        verified: bool = False,
    ) -> None: ...
    connection: str | None
    def create_child_context(
        self,
        *,
        thread: str | None = None,
        run: str | None = None,
    ) -> UserExecutionContext: ...
    created: datetime
    depth: int
    expires: datetime | None
    def get_scoped_key(self, key: str) -> str: ...
    @classmethod
    def of(
        cls,
        principal: Principal,
        *,
        thread: str | None = None,
        run: str | None = None,
        connection: str | None = None,
    ) -> UserExecutionContext: ...
    request: str
    roles: frozenset[str]
    run: str | None
    tenant: str
    thread: str | None
    def to_dict(self) -> dict[str, Any]: ...
    user: str
    verified: bool
    def verify_isolation(self, other: UserExecutionContext) -> bool: ...

# module towpath.errors
class MissingExtra(ConfigurationError, ImportError):
    @classmethod
    def of(cls, needed_by: str, extra: str, error: ImportError) -> Self: ...
class NotRunning(TowpathError):
    def __str__(self) -> str: ...

# module towpath.events
class Activity(EventValue):
    def __init__(self, kind: str, content: Event) -> None: ...
    __slots__ = ...
    def __str__(self) -> str: ...
    def changed(self, content: Mapping[str, object]) -> EventValue: ...
    content: Event
    def events(self, ids: Ids) -> list[Event]: ...
    kind: str
    def patched(self, operations: Sequence[Mapping[str, object]]) -> EventValue: ...
AgentItem = ...
class EventValue(ABC):
    __slots__ = ...
    def events(self, ids: Ids) -> list[Event]: ...
class IllegalEvent(TowpathError):
    def __init__(self, event_type: str, reason: str) -> None: ...
    def __str__(self) -> str: ...
    event_type = ...
    reason = ...
class Interrupts(EventValue):
    def __init__(self, interrupts: tuple[Interrupt, ...]) -> None: ...
    __slots__ = ...
    def events(self, ids: Ids) -> list[Event]: ...
    interrupts: tuple[Interrupt, ...]
class Step(EventValue):
    def __init__(self, name: str) -> None: ...
    __slots__ = ...
    def events(self, ids: Ids) -> list[Event]: ...
    def finished(self) -> EventValue: ...
    name: str
class ToolCall(EventValue):
    def __init__(self, name: str, arguments: str, id: str | None = None) -> None: ...
    __slots__ = ...
    def __str__(self) -> str: ...
    arguments: str
    def events(self, ids: Ids) -> list[Event]: ...
    id: str | None
    def id_in(self, ids: Ids, event_type: str) -> str: ...
    name: str
    def result(self, content: object) -> ToolResult: ...
class ToolResult(EventValue):
    def __init__(self, call: ToolCall | str, content: str) -> None: ...
    __slots__ = ...
    call: ToolCall | str
    content: str
    def events(self, ids: Ids) -> list[Event]: ...
    @classmethod
    def of(cls, call: ToolCall | str, content: object) -> ToolResult: ...
def activity(kind: str, content: Mapping[str, object]) -> Activity: ...
def ask(
    message: str,
    *,
    reason: str = 'question',
    expires: datetime | None = None,
    response_schema: Mapping[str, object] | None = None,
    id: str | None = None,
) -> Interrupts: ...
def ask_all(*interrupts: Interrupts) -> Interrupts: ...
def ask_for_approval(
    call: ToolCall | str,
    *,
    message: str | None = None,
    reason: str = 'tool_call',
    expires: datetime | None = None,
    response_schema: Mapping[str, object] | None = None,
    id: str | None = None,
) -> Interrupts: ...
def custom(name: str, value: object = None) -> EventValue: ...
def golden_name(event: Mapping[str, Any]) -> str | None: ...
def message(text: str, *, role: MessageRole = 'assistant') -> EventValue: ...
def state(snapshot: object) -> EventValue: ...
def state_delta(operations: Sequence[Mapping[str, object]]) -> EventValue: ...
def step(name: str) -> Step: ...
def thinking(text: str) -> EventValue: ...
def tool_call(
    name: str,
    arguments: Mapping[str, object] | str | None = None,
    *,
    id: str | None = None,
) -> ToolCall: ...
def tool_result(tool_call_id: str, content: object) -> ToolResult: ...

# module towpath.hooks
class Appended(TelemetryEvent):
    def __init__(self, *, publications: int, seconds: float) -> None: ...
    publications: int
    seconds: float
class BreakerMoved(TelemetryEvent):
    def __init__(self, *, dependency: str, before: str, after: str) -> None: ...
    after: str
    before: str
    dependency: str
class CaughtUp(TelemetryEvent):
    def __init__(self, *, connection: str, publications: int) -> None: ...
    connection: str
    publications: int
class CommandAnswered(TelemetryEvent):
    def __init__(self, *, connection: str, command: str, error: int, seconds: float) -> None: ...
    command: str
    connection: str
    error: int
    seconds: float
class ConnectionClosed(TelemetryEvent):
    def __init__(
        self,
        *,
        connection: str,
        tenant: str | None,
        user: str | None,
        code: int,
        reason: str,
        seconds: float,
    ) -> None: ...
    code: int
    connection: str
    reason: str
    seconds: float
    tenant: str | None
    user: str | None
class ConnectionOpened(TelemetryEvent):
    def __init__(self, *, connection: str, tenant: str, user: str) -> None: ...
    connection: str
    tenant: str
    user: str
class CredentialAccepted(TelemetryEvent):
    def __init__(self, *, connection: str, source: str, age: float) -> None: ...
    age: float
    connection: str
    source: str
class CredentialRefused(TelemetryEvent):
    def __init__(self, *, connection: str, verdict: str, reason: str) -> None: ...
    connection: str
    reason: str
    verdict: str
class DigestMismatch(TelemetryEvent):
    def __init__(
        self,
        *,
        tenant: str,
        user: str,
        thread: str,
        message: str,
        published: str,
        shown: str,
        kept: str | None,
    ) -> None: ...
    kept: str | None
    log: str
    message: str
    published: str
    shown: str
    tenant: str
    thread: str
    user: str
class Fault(TelemetryEvent):
    def __init__(
        self,
        *,
        where: str,
        error: BaseException,
        thread: str | None = None,
        run: str | None = None,
    ) -> None: ...
    error: BaseException
    run: str | None
    thread: str | None
    where: str
class Happening:
    def __init__(self) -> None: ...
class Hooks:
    def __init__(self, observers: Iterable[Observer] = ()) -> None: ...
    def add_observer(self, observer: Observer) -> None: ...
    def emit(self, event: TelemetryEvent) -> None: ...
    failures = ...
class InternalError(TelemetryEvent):
    def __init__(
        self,
        *,
        where: str,
        error: BaseException,
        thread: str | None = None,
        run: str | None = None,
    ) -> None: ...
    error: BaseException
    run: str | None
    thread: str | None
    where: str
class KeysFetched(TelemetryEvent):
    def __init__(self, *, issuer: str, failure: str, seconds: float) -> None: ...
    failure: str
    issuer: str
    seconds: float
class LogChanged(TelemetryEvent):
    def __init__(self, *, before: str, after: str, reason: str) -> None: ...
    after: str
    before: str
    reason: str
class LogQuarantined(TelemetryEvent):
    def __init__(
        self,
        *,
        path: str,
        reason: str,
        carried: Mapping[str, int],
        control: bool,
    ) -> None: ...
    carried: Mapping[str, int]
    control: bool
    path: str
    reason: str
Observer = ...
class RevocationsIncomplete(TelemetryEvent):
    def __init__(self, *, reason: str) -> None: ...
    reason: str
class RunBegan(TelemetryEvent):
    def __init__(self, *, tenant: str, user: str, thread: str, run: str, agent: str) -> None: ...
    agent: str
    run: str
    tenant: str
    thread: str
    user: str
class RunEnded(TelemetryEvent):
    def __init__(
        self,
        *,
        tenant: str,
        user: str,
        thread: str,
        run: str,
        agent: str,
        status: str,
        code: str | None,
        events: int,
        seconds: float,
    ) -> None: ...
    agent: str
    code: str | None
    events: int
    run: str
    seconds: float
    status: str
    tenant: str
    thread: str
    user: str
class SessionsRevoked(TelemetryEvent):
    def __init__(self, *, tenant: str, what: str, closed: int) -> None: ...
    closed: int
    tenant: str
    what: str
class Telemetry:
    def __init__(self, observers: Iterable[Observer] = ()) -> None: ...
    def add_observer(self, observer: Observer) -> None: ...
    def emit(self, event: TelemetryEvent) -> None: ...
    failures = ...
class TelemetryEvent:
    def __init__(self) -> None: ...
Watcher = ...

# module towpath.manager
class AgentWebSocketBridge(View):
    def __init__(
        self,
        context: UserExecutionContext | None = None,
        *,
        tenant: str | None = None,
        gateway: HasNode | None = None,
    ) -> None: ...
    __slots__ = ...
    async def approve(
        self,
        run_id: str,
        interrupt_id: str,
        decision: str,
        *,
        payload: Any = None,
        digest: str | None = None,
        key: str | None = None,
        user_id: str | None = None,
    ) -> Decided: ...
    async def cancel_run(self, run_id: str, *, user_id: str | None = None) -> str: ...
    context = ...
    async def emit_agent_event(
        self,
        run_id: str,
        event_type: str,
        data: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        user_id: str | None = None,
    ) -> SendResult: ...
    def get_health(self) -> BridgeHealth: ...
    async def get_run_status(
        self,
        run_id: str,
        *,
        user_id: str | None = None,
    ) -> RunStatus | None: ...
    async def get_thread_id(self, run_id: str, *, user_id: str | None = None) -> str | None: ...
    async def notify_agent_completed(
        self,
        run_id: str,
        result: object = None,
        *,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_agent_error(
        self,
        run_id: str,
        message: str,
        *,
        code: str | None = None,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_agent_started(
        self,
        run_id: str | None,
        agent_name: str,
        message: str,
        *,
        thread_id: str | None = None,
        user_id: str | None = None,
    ) -> StartedRun | Refused: ...
    async def notify_agent_text(
        self,
        run_id: str,
        text: str,
        *,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_agent_thinking(
        self,
        run_id: str,
        text: str,
        *,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_custom(
        self,
        run_id: str,
        name: str,
        value: object,
        *,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_progress_update(
        self,
        run_id: str,
        progress: float | None = None,
        message: str | None = None,
        *,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_tool_completed(
        self,
        run_id: str,
        tool_name: str,
        result: object = '',
        *,
        tool_call_id: str | None = None,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def notify_tool_executing(
        self,
        run_id: str,
        tool_name: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        tool_call_id: str | None = None,
        user_id: str | None = None,
    ) -> SendResult: ...
    async def start_run(
        self,
        agent: str,
        message: str | None = None,
        *,
        thread_id: str | None = None,
        input: Mapping[str, Any] | None = None,
        key: str | None = None,
        user_id: str | None = None,
    ) -> StartedRun | Refused: ...
    tenant: str
class BridgeHealth:
    def __init__(self, *, phase: str, active_runs: int) -> None: ...
    active_runs: int
    healthy: bool
    phase: str
class ConnectionEnded:
    def __init__(self, *, id: str, code: int, reason: str) -> None: ...
    code: int
    id: str
    reason: str
class ConnectionHealth:
    def __init__(self, *, connections: int, waiting_bytes: int, behind: int) -> None: ...
    behind: int
    connections: int
    healthy: bool
    waiting_bytes: int
class ConnectionInfo:
    def __init__(
        self,
        *,
        id: str,
        user: str,
        tenant: str,
        channels: tuple[str, ...],
        thread: str | None,
        waiting_bytes: int,
        expires_at: float | None,
    ) -> None: ...
    channels: tuple[str, ...]
    expires_at: float | None
    id: str
    tenant: str
    thread: str | None
    user: str
    waiting_bytes: int
class Delivered:
    def __init__(self, position: Position, connections: int) -> None: ...
    connections: int
    position: Position
class ForeignUser(TowpathError, ValueError):
    ...
class JobEvents:
    def __aiter__(self) -> AsyncIterator[Event]: ...
    def __init__(self, node: Node, key: RunKey) -> None: ...
    async def aclose(self) -> None: ...
class NoIdentity(TowpathError, ValueError):
    ...
class Queued:
    def __init__(self, position: Position) -> None: ...
    position: Position
class RecoveredMessages:
    def __init__(
        self,
        *,
        messages: tuple[object, ...],
        position: Position,
        recovered: bool,
    ) -> None: ...
    messages: tuple[object, ...]
    position: Position
    recovered: bool
class Refused:
    def __init__(self, reason: str) -> None: ...
    reason: str
class RunStatus:
    def __init__(
        self,
        *,
        run: str,
        thread: str,
        agent: str,
        status: str,
        code: str | None,
        active_here: bool,
    ) -> None: ...
    active_here: bool
    agent: str
    code: str | None
    run: str
    status: str
    thread: str
SendResult = ...
class StartedRun:
    def __init__(self, *, thread: str, run: str, position: Position) -> None: ...
    position: Position
    run: str
    thread: str
class Unserialisable(TowpathError, TypeError):
    def __init__(self, path: str, reason: str) -> None: ...
    def __str__(self) -> str: ...
    path = ...
    reason = ...
class WebSocketManager(Connections):
    def __init__(
        self,
        context: UserExecutionContext | None = None,
        *,
        tenant: str | None = None,
        gateway: HasNode | None = None,
    ) -> None: ...
    __slots__ = ...
    async def add_connection(
        self,
        user_id: str,
        websocket: WebSocket,
        *,
        connection_id: str | None = None,
    ) -> str | Refused: ...
    add_connection_by_user = ...
    async def attempt_message_recovery(
        self,
        user_id: str,
        since: Position | None = None,
        *,
        limit: int = RECOVERY_LIMIT,
    ) -> RecoveredMessages: ...
    async def broadcast(
        self,
        message: object,
        *,
        name: str = 'message',
        key: str | None = None,
    ) -> SendResult: ...
    broadcast_message = ...
    async def connect_to_job(self, user_id: str, job_id: str) -> JobEvents: ...
    async def connect_user(
        self,
        user_id: str,
        websocket: WebSocket,
        *,
        connection_id: str | None = None,
    ) -> ConnectionEnded | Refused: ...
    context = ...
    async def disconnect_from_job(self, job: JobEvents) -> None: ...
    async def disconnect_user(
        self,
        user_id: str,
        *,
        code: int = codes.FORCED.number,
        reason: str | None = None,
    ) -> int: ...
    async def emit_critical_event(
        self,
        user_id: str,
        event_type: str,
        data: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
    ) -> SendResult: ...
    def find_connection(
        self,
        user_id: str,
        *,
        thread_id: str | None = None,
    ) -> ConnectionInfo | None: ...
    async def force_cleanup_user_events(self, user_id: str) -> int: ...
    def get_connection(self, connection_id: str) -> ConnectionInfo | None: ...
    def get_connection_count(self, user_id: str | None = None) -> int: ...
    def get_connection_health(self, user_id: str) -> ConnectionHealth: ...
    def get_connection_id_by_websocket(self, websocket: WebSocket) -> str | None: ...
    def get_user_connections(self, user_id: str) -> list[ConnectionInfo]: ...
    async def handle_connection(self, connection_id: str) -> ConnectionEnded | None: ...
    handle_disconnection = ...
    async def handle_message(self, user_id: str, message: Mapping[str, Any]) -> Any: ...
    def is_connection_active(self, connection_id: str) -> bool: ...
    def is_user_connected(self, user_id: str) -> bool: ...
    async def remove_connection(
        self,
        connection_id: str,
        *,
        code: int = codes.FORCED.number,
        reason: str | None = None,
    ) -> bool: ...
    remove_connection_by_user = ...
    async def send_agent_event(
        self,
        user_id: str,
        event_type: str,
        data: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
    ) -> SendResult: ...
    async def send_to_thread(
        self,
        thread_id: str,
        message: object,
        *,
        user_id: str | None = None,
        name: str = 'message',
        key: str | None = None,
    ) -> SendResult: ...
    async def send_to_user(
        self,
        user_id: str,
        message: object,
        *,
        name: str = 'message',
        key: str | None = None,
    ) -> SendResult: ...
    async def send_to_user_with_wait(
        self,
        user_id: str,
        message: object,
        *,
        wait_timeout: float = WAIT_SECONDS,
        name: str = 'message',
        key: str | None = None,
    ) -> SendResult: ...
    tenant: str
    def update_connection_thread(self, connection_id: str, thread_id: str | None) -> bool: ...
    async def wait_for_connection(self, user_id: str, timeout: float = WAIT_SECONDS) -> bool: ...
def create_websocket_manager(
    context: UserExecutionContext | None = None,
    *,
    tenant: str | None = None,
    gateway: HasNode | None = None,
) -> WebSocketManager: ...
async def get_websocket_manager(
    context: UserExecutionContext | None = None,
    *,
    tenant: str | None = None,
    gateway: HasNode | None = None,
) -> WebSocketManager: ...

# module towpath.server.gateway
class Gateway:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...
    def __init__(self, settings: Settings | None = None) -> None: ...
    def add_observer(self, observer: Observer) -> None: ...
    def agent(
        self,
        name: str,
        *,
        deadline: float | None = None,
        double_texting: DoubleTextingName = 'reject',
    ) -> Callable[[F], F]: ...
    def agent_exited(self, key: RunKey | None, error: BaseException) -> None: ...
    agents = ...
    auth: ConnectionAuth
    async def cancel_run(self, context: UserExecutionContext, run_id: str) -> str: ...
    def demo_token(self, user: str, tenant: str = DEMO_TENANT, ttl: float = 3600.0) -> str: ...
    demo_users: tuple[str, ...]
    async def disconnect(
        self,
        context: UserExecutionContext,
        *,
        code: int = FORCED.number,
        reason: str | None = None,
    ) -> int: ...
    async def drain(self) -> None: ...
    async def lifespan(self, _: Any = None) -> AsyncGenerator[None, None]: ...
    metrics = ...
    def mount(self, app: Starlette, path: str) -> None: ...
    node: Node | None
    async def notify(
        self,
        context: UserExecutionContext,
        value: object,
        *,
        name: str = 'message',
        key: str | None = None,
    ) -> SendResult: ...
    phase: Phase
    portal = ...
    settings = ...
    async def start_run(
        self,
        context: UserExecutionContext,
        agent: str,
        message: str | None = None,
        *,
        input: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> StartedRun | Refused: ...
    def use_development_key(self, host: str) -> None: ...
    watch = ...

# module towpath.server.settings
class IssuerSettings(BaseModel):
    def __init__(
        self,
        *,
        algorithm: str | None = None,
        audience: str | None = None,
        issuer: str | None = None,
        jwks_url: str | None = None,
        key: OptionalSecret = NOT_SET,
        required: bool = True,
        roles_claim: str = 'roles',
        tenant: str | None = None,
        tenant_claim: str | None = None,
    ) -> None: ...
    algorithm: str | None
    audience: str | None
    issuer: str | None
    jwks_url: str | None
    key: OptionalSecret
    model_config = ...
    required: bool
    roles_claim: str
    tenant: str | None
    tenant_claim: str | None
class Settings(TimeoutSettings, LimitSettings, ModelSettings, RunSettings, AuthSettings, StorageSettings, BaseSettings):
    def __init__(
        self,
        *,
        allowed_origins: frozenset[str] = frozenset(),
        auth_attempts: int = Field(default=3, gt=0),
        auth_timeout: float = Field(default=2.5, gt=0, le=3),
        backlog_bytes: int = Field(default=BACKLOG_BYTES, gt=0),
        breaker_failures: int = Field(default=3, gt=0),
        breaker_reset: float = Field(default=15.0, gt=0),
        ca_file: Path | None = None,
        cleanup_timeout: float = Field(default=5.0, gt=0),
        close_timeout: float = Field(default=2.0, gt=0),
        commands_burst: int = Field(default=512, gt=0),
        commands_per_second: float = Field(default=50.0, gt=0),
        connect_timeout: float = Field(default=5.0, gt=0),
        data: Directory = DEFAULT_DATA,
        drain_timeout: float = Field(default=8.0, gt=0),
        early_message_bytes: int = Field(default=64 * 1024, gt=0),
        errors: int = Field(default=100, gt=0),
        expiry_grace: float = Field(default=25.0, ge=0),
        failures_burst: int = Field(default=200, gt=0),
        failures_per_second: float = Field(default=10.0, gt=0),
        interrupt_timeout: float = Field(default=24 * 3600.0, gt=0),
        issuers: tuple[IssuerSettings, ...] = (),
        jwks_url: str | None = None,
        jwt_algorithm: str | None = None,
        jwt_audience: str | None = None,
        jwt_issuer: str | None = None,
        jwt_key: OptionalSecret = NOT_SET,
        keep_raw: bool = False,
        keys_cooldown: float = Field(default=10.0, gt=0),
        keys_fresh: float = Field(default=300.0, gt=0),
        keys_stale: float = Field(default=3600.0, ge=0),
        keys_timeout: float = Field(default=1.0, gt=0),
        limited_delay: float = Field(default=1.0, ge=0, le=2),
        message_bytes: int = Field(default=1024 * 1024, gt=0),
        model: str | None = None,
        model_tokens: int | None = Field(default=None, gt=0),
        openai_api_key: OptionalSecret = Field(default=NOT_SET, validation_alias='OPENAI_API_KEY'),
        openai_base_url: str | None = Field(default=None, validation_alias='OPENAI_BASE_URL'),
        outage_grace: float = Field(default=900.0, ge=0),
        outbox_bytes: int = Field(default=4 * 1024 * 1024, gt=0),
        ping_interval: float = Field(default=25.0, gt=0),
        pong_timeout: float = Field(default=10.0, gt=0),
        ready_timeout: float = Field(default=2.0, gt=0),
        repeats_burst: int = Field(default=20, gt=0),
        repeats_per_second: float = Field(default=0.5, gt=0),
        reserve_bytes: int = Field(default=16 * 1024 * 1024, ge=0),
        roles_claim: str = 'roles',
        run_bytes: int = Field(default=64 * 1024 * 1024, gt=0),
        run_deadline: float = Field(default=600.0, gt=0),
        run_lease: float = Field(default=15.0, ge=1),
        run_message_bytes: int = Field(default=256 * 1024, gt=0),
        runs_burst: int = Field(default=60, gt=0),
        runs_per_second: float = Field(default=1.0, gt=0),
        server_subscriptions: tuple[str, ...] = ('user', 'tenant'),
        slow_timeout: float = Field(default=30.0, gt=0),
        snapshot_max_bytes: int = Field(default=1024 * 1024, gt=0),
        subscriptions: int = Field(default=128, gt=0),
        synchronous: str = Field(default='NORMAL', pattern='^(NORMAL|FULL)$'),
        tenant: str | None = None,
        tenant_claim: str | None = None,
        tenant_connections: int = Field(default=10000, gt=0),
        trusted_proxies: frozenset[str] = frozenset(),
        user_connections: int = Field(default=20, gt=0),
        verdict_seconds: float = Field(default=300.0, gt=0),
        waiting_bytes: int = Field(default=64 * 1024, gt=0),
        waiting_commands: int = Field(default=256, gt=0),
    ) -> None: ...
    allowed_origins: frozenset[str]
    auth_attempts: int
    auth_timeout: float
    backlog_bytes: int
    breaker_failures: int
    breaker_reset: float
    ca_file: Path | None
    cleanup_timeout: float
    close_timeout: float
    commands_burst: int
    commands_per_second: float
    connect_timeout: float
    data: Directory
    drain_timeout: float
    early_message_bytes: int
    errors: int
    expiry_grace: float
    failures_burst: int
    failures_per_second: float
    interrupt_timeout: float
    issuers: tuple[IssuerSettings, ...]
    jwks_url: str | None
    jwt_algorithm: str | None
    jwt_audience: str | None
    jwt_issuer: str | None
    jwt_key: OptionalSecret
    keep_raw: bool
    keys_cooldown: float
    keys_fresh: float
    keys_stale: float
    keys_timeout: float
    limited_delay: float
    message_bytes: int
    model: str | None
    model_config = ...
    model_tokens: int | None
    openai_api_key: OptionalSecret
    openai_base_url: str | None
    outage_grace: float
    outbox_bytes: int
    ping_interval: float
    pong_timeout: float
    ready_timeout: float
    repeats_burst: int
    repeats_per_second: float
    reserve_bytes: int
    roles_claim: str
    run_bytes: int
    run_deadline: float
    run_lease: float
    run_message_bytes: int
    runs_burst: int
    runs_per_second: float
    server_subscriptions: tuple[str, ...]
    slow_timeout: float
    snapshot_max_bytes: int
    subscriptions: int
    synchronous: str
    tenant: str | None
    tenant_claim: str | None
    tenant_connections: int
    trusted_proxies: frozenset[str]
    user_connections: int
    verdict_seconds: float
    waiting_bytes: int
    waiting_commands: int

# module towpath.settings
class IssuerSettings(BaseModel):
    def __init__(
        self,
        *,
        algorithm: str | None = None,
        audience: str | None = None,
        issuer: str | None = None,
        jwks_url: str | None = None,
        key: OptionalSecret = NOT_SET,
        required: bool = True,
        roles_claim: str = 'roles',
        tenant: str | None = None,
        tenant_claim: str | None = None,
    ) -> None: ...
    algorithm: str | None
    audience: str | None
    issuer: str | None
    jwks_url: str | None
    key: OptionalSecret
    model_config = ...
    required: bool
    roles_claim: str
    tenant: str | None
    tenant_claim: str | None

# module towpath.telemetry
class Appended(TelemetryEvent):
    def __init__(self, *, publications: int, seconds: float) -> None: ...
    publications: int
    seconds: float
class BreakerMoved(TelemetryEvent):
    def __init__(self, *, dependency: str, before: str, after: str) -> None: ...
    after: str
    before: str
    dependency: str
class CaughtUp(TelemetryEvent):
    def __init__(self, *, connection: str, publications: int) -> None: ...
    connection: str
    publications: int
class CommandAnswered(TelemetryEvent):
    def __init__(self, *, connection: str, command: str, error: int, seconds: float) -> None: ...
    command: str
    connection: str
    error: int
    seconds: float
class ConnectionClosed(TelemetryEvent):
    def __init__(
        self,
        *,
        connection: str,
        tenant: str | None,
        user: str | None,
        code: int,
        reason: str,
        seconds: float,
    ) -> None: ...
    code: int
    connection: str
    reason: str
    seconds: float
    tenant: str | None
    user: str | None
class ConnectionOpened(TelemetryEvent):
    def __init__(self, *, connection: str, tenant: str, user: str) -> None: ...
    connection: str
    tenant: str
    user: str
class CredentialAccepted(TelemetryEvent):
    def __init__(self, *, connection: str, source: str, age: float) -> None: ...
    age: float
    connection: str
    source: str
class CredentialRefused(TelemetryEvent):
    def __init__(self, *, connection: str, verdict: str, reason: str) -> None: ...
    connection: str
    reason: str
    verdict: str
class DigestMismatch(TelemetryEvent):
    def __init__(
        self,
        *,
        tenant: str,
        user: str,
        thread: str,
        message: str,
        published: str,
        shown: str,
        kept: str | None,
    ) -> None: ...
    kept: str | None
    log: str
    message: str
    published: str
    shown: str
    tenant: str
    thread: str
    user: str
class InternalError(TelemetryEvent):
    def __init__(
        self,
        *,
        where: str,
        error: BaseException,
        thread: str | None = None,
        run: str | None = None,
    ) -> None: ...
    error: BaseException
    run: str | None
    thread: str | None
    where: str
class KeysFetched(TelemetryEvent):
    def __init__(self, *, issuer: str, failure: str, seconds: float) -> None: ...
    failure: str
    issuer: str
    seconds: float
class LogChanged(TelemetryEvent):
    def __init__(self, *, before: str, after: str, reason: str) -> None: ...
    after: str
    before: str
    reason: str
class LogQuarantined(TelemetryEvent):
    def __init__(
        self,
        *,
        path: str,
        reason: str,
        carried: Mapping[str, int],
        control: bool,
    ) -> None: ...
    carried: Mapping[str, int]
    control: bool
    path: str
    reason: str
Observer = ...
class RevocationsIncomplete(TelemetryEvent):
    def __init__(self, *, reason: str) -> None: ...
    reason: str
class RunBegan(TelemetryEvent):
    def __init__(self, *, tenant: str, user: str, thread: str, run: str, agent: str) -> None: ...
    agent: str
    run: str
    tenant: str
    thread: str
    user: str
class RunEnded(TelemetryEvent):
    def __init__(
        self,
        *,
        tenant: str,
        user: str,
        thread: str,
        run: str,
        agent: str,
        status: str,
        code: str | None,
        events: int,
        seconds: float,
    ) -> None: ...
    agent: str
    code: str | None
    events: int
    run: str
    seconds: float
    status: str
    tenant: str
    thread: str
    user: str
class SessionsRevoked(TelemetryEvent):
    def __init__(self, *, tenant: str, what: str, closed: int) -> None: ...
    closed: int
    tenant: str
    what: str
class Telemetry:
    def __init__(self, observers: Iterable[Observer] = ()) -> None: ...
    def add_observer(self, observer: Observer) -> None: ...
    def emit(self, event: TelemetryEvent) -> None: ...
    failures = ...
class TelemetryEvent:
    def __init__(self) -> None: ...

# module towpath.testing
class FaultProxy:
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def __init__(self, target_host: str, target_port: int, *, fault: ProxyFault = PASS) -> None: ...
    answered = ...
    connections = ...
    def cut(self) -> int: ...
    fault: ProxyFault
    host = ...
    http: str
    live: int
    port = ...
    target = ...
class FinishedRun(RunHandle):
    def __init__(
        self,
        *,
        principal: Principal,
        thread: str,
        run: str,
        events: list[Event],
        earlier: list[Event],
    ) -> None: ...
    def arguments(self, tool_call: str) -> str: ...
    code: str | None
    earlier: list[Event]
    ending: Event
    events: list[Event]
    interrupts: list[Event]
    messages: list[Message]
    outcome: str
    principal: Principal
    run: str
    state: Any
    text: str
    thread: str
    tool_calls: list[ToolCallRecord]
class Gate:
    def __init__(self, name: str = 'gate') -> None: ...
    name = ...
    async def reached(self, *, timeout: float = REACH_SECONDS) -> None: ...
    def release(self) -> None: ...
    async def wait(self) -> None: ...
class GatewayTestClient:
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def __init__(
        self,
        gateway: Gateway,
        *,
        tenant: str = 'acme',
        timeout: float = 30.0,
        clock: VirtualClock | None = None,
        signer: TokenSigner | None = None,
    ) -> None: ...
    async def approve(self, run: FinishedRun, *, payload: object = None) -> FinishedRun: ...
    async def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        user: str = 'alice',
        tenant: str | None = None,
        roles: Iterable[str] = (),
    ) -> Any: ...
    async def cancel(self, run: RunHandle) -> str: ...
    async def decide(
        self,
        run: FinishedRun,
        interrupt: str,
        decision: Literal['approve', 'refuse'],
        *,
        payload: object = None,
        arguments: str | None = None,
    ) -> RunHandle | None: ...
    async def events(self, run: RunHandle) -> list[Event]: ...
    node: Node
    async def notices(
        self,
        user: str | None = 'alice',
        *,
        tenant: str | None = None,
    ) -> list[Event]: ...
    async def refuse(self, run: FinishedRun, *, payload: object = None) -> FinishedRun: ...
    async def run(
        self,
        agent: str,
        message: str | None = None,
        *,
        user: str = 'alice',
        tenant: str | None = None,
        roles: Iterable[str] = (),
        thread: str | None = None,
        input: Mapping[str, Any] | None = None,
    ) -> FinishedRun: ...
    signer = ...
    async def start(
        self,
        agent: str,
        message: str | None = None,
        *,
        user: str = 'alice',
        tenant: str | None = None,
        roles: Iterable[str] = (),
        thread: str | None = None,
        input: Mapping[str, Any] | None = None,
    ) -> RunHandle: ...
    telemetry = ...
    async def thread(
        self,
        thread: str,
        *,
        user: str = 'alice',
        tenant: str | None = None,
    ) -> ThreadView: ...
    async def wait(self, run: RunHandle) -> FinishedRun: ...
class OidcProvider(Listener):
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def __init__(
        self,
        *,
        issuer: str | None = None,
        audience: str = 'towpath',
        tenant_claim: str = 'tenant',
        algorithm: str = 'RS256',
    ) -> None: ...
    def add_key(
        self,
        algorithm: str = 'RS256',
        *,
        kid: str | None = None,
        key: Key | None = None,
    ) -> str: ...
    def answer(self, answer: Answer, *, path: str | None = None) -> None: ...
    audience = ...
    bytes_sent = ...
    def document(self) -> dict[str, object]: ...
    def drop_key(self, kid: str) -> None: ...
    def heal(self) -> None: ...
    http: str
    issuer = ...
    def key(self, kid: str | None = None) -> Key: ...
    def key_set(self) -> dict[str, object]: ...
    kids: list[str]
    metadata: dict[str, object]
    port = ...
    requests: Counter[str]
    def rotate(self, algorithm: str = 'RS256') -> str: ...
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None: ...
    tenant_claim = ...
    def token(
        self,
        user: str = 'alice',
        tenant: str = 'acme',
        *,
        ttl: float = 3600.0,
        now: float | None = None,
        kid: str | EllipsisType | None = None,
        **claims: object,
    ) -> str: ...
class RunHandle:
    def __init__(self, *, principal: Principal, thread: str, run: str) -> None: ...
    principal: Principal
    run: str
    thread: str
class ServerProcess:
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def __init__(
        self,
        data: Path,
        *arguments: str,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        development: bool = True,
        cwd: Path | None = None,
    ) -> None: ...
    def await_ready(self) -> None: ...
    data = ...
    environment: dict[str, str]
    http: str
    def kill(self) -> int: ...
    def launch(self) -> None: ...
    log = ...
    port = ...
    process: subprocess.Popen[bytes] | None
    def ready(self) -> bool: ...
    def start(self) -> None: ...
    def stop(self) -> int: ...
    def token(
        self,
        user: str = 'alice',
        tenant: str = 'acme',
        *,
        ttl: float = 3600.0,
        role: str = '',
    ) -> str: ...
    ws: str
class TokenSigner:
    def __init__(self, *, now: Callable[[], float] = time.time) -> None: ...
    def configure(self, settings: Settings) -> Settings: ...
    key = ...
    def token(
        self,
        user: str = 'alice',
        *,
        tenant: str = 'acme',
        roles: Iterable[str] = (),
        expires_in: float = 3600.0,
    ) -> str: ...
class VirtualClock:
    def __init__(self, start: float | None = None) -> None: ...
    def advance(self, seconds: float) -> None: ...
    def monotonic(self) -> float: ...
    def now(self) -> float: ...
def expect_events(events: Sequence[Event], expected: Sequence[Expected]) -> None: ...
def scripted(*items: object) -> AgentFunction: ...

# module towpath.testing.client
async def wire_client(
    url: str,
    token: str = '',
    *,
    answer_pings: bool = True,
    **options: Any,
) -> AsyncGenerator[WireClient, None]: ...

# module towpath.testing.faults
class FaultProxy:
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def __init__(self, target_host: str, target_port: int, *, fault: ProxyFault = PASS) -> None: ...
    answered = ...
    connections = ...
    def cut(self) -> int: ...
    fault: ProxyFault
    host = ...
    http: str
    live: int
    port = ...
    target = ...

# module towpath.testing.gateway_client
class GatewayTestClient:
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def __init__(
        self,
        gateway: Gateway,
        *,
        tenant: str = 'acme',
        timeout: float = 30.0,
        clock: VirtualClock | None = None,
        signer: TokenSigner | None = None,
    ) -> None: ...
    async def approve(self, run: FinishedRun, *, payload: object = None) -> FinishedRun: ...
    async def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        user: str = 'alice',
        tenant: str | None = None,
        roles: Iterable[str] = (),
    ) -> Any: ...
    async def cancel(self, run: RunHandle) -> str: ...
    async def decide(
        self,
        run: FinishedRun,
        interrupt: str,
        decision: Literal['approve', 'refuse'],
        *,
        payload: object = None,
        arguments: str | None = None,
    ) -> RunHandle | None: ...
    async def events(self, run: RunHandle) -> list[Event]: ...
    node: Node
    async def notices(
        self,
        user: str | None = 'alice',
        *,
        tenant: str | None = None,
    ) -> list[Event]: ...
    async def refuse(self, run: FinishedRun, *, payload: object = None) -> FinishedRun: ...
    async def run(
        self,
        agent: str,
        message: str | None = None,
        *,
        user: str = 'alice',
        tenant: str | None = None,
        roles: Iterable[str] = (),
        thread: str | None = None,
        input: Mapping[str, Any] | None = None,
    ) -> FinishedRun: ...
    signer = ...
    async def start(
        self,
        agent: str,
        message: str | None = None,
        *,
        user: str = 'alice',
        tenant: str | None = None,
        roles: Iterable[str] = (),
        thread: str | None = None,
        input: Mapping[str, Any] | None = None,
    ) -> RunHandle: ...
    telemetry = ...
    async def thread(
        self,
        thread: str,
        *,
        user: str = 'alice',
        tenant: str | None = None,
    ) -> ThreadView: ...
    async def wait(self, run: RunHandle) -> FinishedRun: ...

# module towpath.testing.oidc_provider
class OidcProvider(Listener):
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def __init__(
        self,
        *,
        issuer: str | None = None,
        audience: str = 'towpath',
        tenant_claim: str = 'tenant',
        algorithm: str = 'RS256',
    ) -> None: ...
    def add_key(
        self,
        algorithm: str = 'RS256',
        *,
        kid: str | None = None,
        key: Key | None = None,
    ) -> str: ...
    def answer(self, answer: Answer, *, path: str | None = None) -> None: ...
    audience = ...
    bytes_sent = ...
    def document(self) -> dict[str, object]: ...
    def drop_key(self, kid: str) -> None: ...
    def heal(self) -> None: ...
    http: str
    issuer = ...
    def key(self, kid: str | None = None) -> Key: ...
    def key_set(self) -> dict[str, object]: ...
    kids: list[str]
    metadata: dict[str, object]
    port = ...
    requests: Counter[str]
    def rotate(self, algorithm: str = 'RS256') -> str: ...
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None: ...
    tenant_claim = ...
    def token(
        self,
        user: str = 'alice',
        tenant: str = 'acme',
        *,
        ttl: float = 3600.0,
        now: float | None = None,
        kid: str | EllipsisType | None = None,
        **claims: object,
    ) -> str: ...

# module towpath.testing.provider
class OidcProvider(Listener):
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def __init__(
        self,
        *,
        issuer: str | None = None,
        audience: str = 'towpath',
        tenant_claim: str = 'tenant',
        algorithm: str = 'RS256',
    ) -> None: ...
    def add_key(
        self,
        algorithm: str = 'RS256',
        *,
        kid: str | None = None,
        key: Key | None = None,
    ) -> str: ...
    def answer(self, answer: Answer, *, path: str | None = None) -> None: ...
    audience = ...
    bytes_sent = ...
    def document(self) -> dict[str, object]: ...
    def drop_key(self, kid: str) -> None: ...
    def heal(self) -> None: ...
    http: str
    issuer = ...
    def key(self, kid: str | None = None) -> Key: ...
    def key_set(self) -> dict[str, object]: ...
    kids: list[str]
    metadata: dict[str, object]
    port = ...
    requests: Counter[str]
    def rotate(self, algorithm: str = 'RS256') -> str: ...
    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None: ...
    tenant_claim = ...
    def token(
        self,
        user: str = 'alice',
        tenant: str = 'acme',
        *,
        ttl: float = 3600.0,
        now: float | None = None,
        kid: str | EllipsisType | None = None,
        **claims: object,
    ) -> str: ...

# module towpath.testing.server
class ServerProcess:
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def __init__(
        self,
        data: Path,
        *arguments: str,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        development: bool = True,
        cwd: Path | None = None,
    ) -> None: ...
    def await_ready(self) -> None: ...
    data = ...
    environment: dict[str, str]
    http: str
    def kill(self) -> int: ...
    def launch(self) -> None: ...
    log = ...
    port = ...
    process: subprocess.Popen[bytes] | None
    def ready(self) -> bool: ...
    def start(self) -> None: ...
    def stop(self) -> int: ...
    def token(
        self,
        user: str = 'alice',
        tenant: str = 'acme',
        *,
        ttl: float = 3600.0,
        role: str = '',
    ) -> str: ...
    ws: str

# module towpath.testing.wire_client
async def wire_client(
    url: str,
    token: str = '',
    *,
    answer_pings: bool = True,
    **options: Any,
) -> AsyncGenerator[WireClient, None]: ...
