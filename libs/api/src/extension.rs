//! Muster's A2A extension and the gRPC metadata that goes with it: what routing needs beyond plain A2A.
//!
//! Everything here is optional. A client that knows nothing of Muster names its target in the path or the tenant
//! and is served.

/// URI of the routing extension, as declared in agent cards and sent in `A2A-Extensions`. Its object, under the
/// same key in a request's metadata, may hold `skills` (all required), `priority`, `ttl` (seconds), `region`,
/// `idempotency` (a second delivery does no harm) and `durable` (the same message is answered once for a day, across routers
/// and restarts).
pub const ROUTING: &str = "urn:muster:a2a:routing:v1";

/// Parameter of the routing extension in which a card states what a call costs: a finite number that is not negative, in a
/// unit that the fleet has agreed on.
pub const COST: &str = "cost";

/// Parameter of the routing extension in which a card states how many messages an instance takes at once: a number from 1. An
/// instance whose card says nothing is found out by how long it takes to answer.
pub const MAX_CONCURRENCY: &str = "maxConcurrency";

/// Parameters of the routing extension in which a card states how many messages a minute the agent takes, all its instances
/// together, of everybody and of each caller: whole numbers from 1.
pub const MESSAGES_PER_MINUTE: &str = "messagesPerMinute";
/// See [`MESSAGES_PER_MINUTE`].
pub const MESSAGES_PER_MINUTE_PER_CALLER: &str = "messagesPerMinutePerCaller";

/// Parameter of the routing extension in which a card asks that the messages of a context reach the same instance, as long as
/// that is there: `true` or `false`.
pub const STICKY_CONTEXTS: &str = "stickyContexts";

/// Parameter of the routing extension in which a card names the store of its instance's tasks, where several instances share
/// one: a text that is the same for exactly those who do, such as a random id that the store holds. Any of them then answers
/// for the tasks of all.
pub const SHARED_TASKS: &str = "sharedTasks";

/// Parameter of the routing extension in which a card says that its agent tells callers apart by the header in which the router names them:
/// its lists have the tasks of whoever asks, and their totals count no others. `true` or `false`.
pub const TELLS_CALLERS_APART: &str = "tellsCallersApart";

/// Parameter of the routing extension in which a card asks for `traceparent` and `tracestate` in the metadata of each message as
/// well, because its agent does not see the headers: `true` or `false`. All other messages are passed on as they came.
pub const TRACE_IN_METADATA: &str = "traceInMetadata";

/// Header (gRPC metadata) in which an answer carries the agent's load, as ORCA has it: `TEXT application_utilization=0.5`.
pub const LOAD_METADATA: &str = "endpoint-load-metrics";

/// Metadata key that names the target (agent id or `skill:SKILL`) for gRPC clients that send no tenant.
pub const TARGET_METADATA: &str = "muster-target";

/// Metadata key under which the router tells an agent which skill was asked for.
pub const SKILL_METADATA: &str = "muster-skill";

/// Metadata key under which the router tells a caller which instance answered.
pub const INSTANCE_METADATA: &str = "muster-instance";

/// Metadata key that carries the attempt-less key of a workflow step: the same on every delivery of that step.
pub const STEP_KEY_METADATA: &str = "muster-step-key";

/// Metadata key that carries the epoch of the lease under which an engine calls, where engines share a store: a higher one comes
/// from whoever has taken the run over since.
pub const EPOCH_METADATA: &str = "muster-epoch";

/// Prefix of a target that names a skill and not an agent.
pub const SKILL_TARGET_PREFIX: &str = "skill:";
