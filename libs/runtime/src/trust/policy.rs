//! What each method needs of its caller: the one table.
//!
//! - A gRPC method is looked up by its path, and its plain HTTP path is that method's; the operations of A2A's JSON bindings are
//!   those of its gRPC service.
//! - What is not in the table is for admins. A service with a method of its contract that is not in the table does not start, and a
//!   test walks the descriptors, so that this never happens to a user.
//! - A method also says how it is audited: reads are only where they are refused, unless the operator wants more.
//!
//! Rejected: options in the `.proto` files, which would put our roles into contracts of others (A2A), and would be read by
//! reflection by whoever is refused.

use super::caller::{Caller, Role};

/// What a method needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: liveness, and cards that A2A wants public.
    Nothing,
    /// Somebody who may look.
    Reader,
    /// Somebody who may have agents work.
    Writer,
    /// One of our services, or an agent: what keeps the fleet together.
    Service,
    /// An admin.
    Admin,
    /// Somebody known; what more is needed depends on the operation, which is not in the path.
    Operation,
}

impl Need {
    /// Whether a caller has what is needed.
    #[must_use]
    pub fn is_met_by(self, caller: &Caller) -> bool {
        let any = |roles: &[Role]| roles.iter().any(|role| caller.roles.has(*role));
        match self {
            Self::Nothing => true,
            Self::Reader | Self::Operation => any(&[
                Role::AgentReader,
                Role::AgentWriter,
                Role::Agent,
                Role::Service,
                Role::Admin,
            ]),
            Self::Writer => any(&[Role::AgentWriter, Role::Agent, Role::Service, Role::Admin]),
            Self::Service => any(&[Role::Agent, Role::Service, Role::Admin]),
            Self::Admin => any(&[Role::Admin]),
        }
    }

    /// What is needed, in words.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Reader | Self::Operation => "the role agent-reader, agent-writer or admin",
            Self::Writer => "the role agent-writer or admin",
            Self::Service => "the role agent, service or admin",
            Self::Admin => "the role admin",
        }
    }
}

/// How a call is audited when it is allowed; refusals always are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Record {
    /// Where reads are wanted in the log.
    Read,
    /// It keeps the fleet together, many times a minute: as reads.
    Upkeep,
    /// Work for agents: in the log soon.
    Work,
    /// A change: in the log before it is made.
    Change,
}

/// The policy of one method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// What is needed.
    pub need: Need,
    /// How it is audited.
    pub record: Record,
}

/// What is in no table.
pub const DEFAULT: Rule = Rule {
    need: Need::Admin,
    record: Record::Change,
};

/// The service of A2A.
pub const A2A: &str = "lf.a2a.v1.A2AService";

const fn look(need: Need) -> Rule {
    Rule {
        need,
        record: Record::Read,
    }
}

const fn upkeep(need: Need) -> Rule {
    Rule {
        need,
        record: Record::Upkeep,
    }
}

const fn work(need: Need) -> Rule {
    Rule {
        need,
        record: Record::Work,
    }
}

const fn change(need: Need) -> Rule {
    Rule {
        need,
        record: Record::Change,
    }
}

type Methods = &'static [(&'static str, Rule)];

/// Every method of every service.
const TABLE: &[(&str, Methods)] = &[
    (
        A2A,
        &[
            ("SendMessage", work(Need::Writer)),
            ("SendStreamingMessage", work(Need::Writer)),
            ("GetTask", look(Need::Reader)),
            ("ListTasks", look(Need::Reader)),
            ("CancelTask", change(Need::Writer)),
            ("SubscribeToTask", look(Need::Reader)),
            ("CreateTaskPushNotificationConfig", change(Need::Writer)),
            ("GetTaskPushNotificationConfig", look(Need::Reader)),
            ("ListTaskPushNotificationConfigs", look(Need::Reader)),
            ("GetExtendedAgentCard", look(Need::Reader)),
            ("DeleteTaskPushNotificationConfig", change(Need::Writer)),
        ],
    ),
    (
        "muster.registry.v1.RegistryService",
        &[
            ("Register", change(Need::Service)),
            ("Heartbeat", upkeep(Need::Service)),
            ("Deregister", change(Need::Service)),
            ("Drain", change(Need::Admin)),
            ("Discover", look(Need::Reader)),
            ("GetAgent", look(Need::Reader)),
            ("ListAgents", look(Need::Reader)),
            ("GetStatistics", look(Need::Reader)),
            ("WatchAgents", look(Need::Reader)),
            ("RegisterByCard", change(Need::Admin)),
            ("ListManagedAgents", look(Need::Reader)),
            ("ForgetManagedAgent", change(Need::Admin)),
        ],
    ),
    (
        "muster.router.v1.RouterService",
        &[
            ("GetStatus", look(Need::Reader)),
            ("GetTuning", look(Need::Reader)),
            ("RevertTuning", change(Need::Admin)),
        ],
    ),
    (
        "muster.router.v1.InboxService",
        &[
            ("Enqueue", work(Need::Writer)),
            ("GetEntry", look(Need::Reader)),
            ("ListEntries", look(Need::Reader)),
            ("CancelEntry", change(Need::Writer)),
            ("ReplayEntries", change(Need::Writer)),
            ("PurgeEntries", change(Need::Writer)),
            // Who takes messages out works for those who have left them.
            ("Receive", work(Need::Service)),
            ("Acknowledge", work(Need::Service)),
            ("Release", work(Need::Service)),
            ("ExtendLease", upkeep(Need::Service)),
            ("Broadcast", work(Need::Writer)),
        ],
    ),
    (
        "muster.admin.v1.AdminService",
        &[
            ("GetLogLevel", look(Need::Reader)),
            ("GetTraffic", look(Need::Reader)),
            ("GetHealth", look(Need::Reader)),
            // The names of callers are nobody's but the operator's.
            ("GetRefusals", look(Need::Admin)),
            ("SetLogLevel", change(Need::Admin)),
        ],
    ),
    (
        "muster.workflow.v1.OptimizationService",
        &[
            ("GetOptimizationReport", look(Need::Reader)),
            ("RevertChanges", change(Need::Admin)),
        ],
    ),
    (
        "muster.workflow.v1.WorkflowService",
        &[
            ("ValidateWorkflow", look(Need::Reader)),
            ("ApplyWorkflow", change(Need::Writer)),
            ("ListWorkflows", look(Need::Reader)),
            ("GetWorkflow", look(Need::Reader)),
            ("StartRun", change(Need::Writer)),
            ("GetRun", look(Need::Reader)),
            ("ListRuns", look(Need::Reader)),
            ("GetHistory", look(Need::Reader)),
            ("WatchRun", look(Need::Reader)),
            ("CancelRun", change(Need::Writer)),
            ("TerminateRun", change(Need::Writer)),
            ("PauseRun", change(Need::Writer)),
            ("ResumeRun", change(Need::Writer)),
            ("RetryRun", change(Need::Writer)),
            ("ForkRun", change(Need::Writer)),
            ("DeleteRun", change(Need::Writer)),
            ("EraseRun", change(Need::Writer)),
            ("BulkRuns", change(Need::Writer)),
            ("ExplainRun", look(Need::Reader)),
            ("VerifyRun", look(Need::Reader)),
            ("GetStatus", look(Need::Reader)),
        ],
    ),
    (
        "muster.workflow.v1.ScheduleService",
        &[
            ("ListSchedules", look(Need::Reader)),
            ("GetSchedule", look(Need::Reader)),
            ("PauseSchedule", change(Need::Writer)),
            ("ResumeSchedule", change(Need::Writer)),
            ("TriggerSchedule", change(Need::Writer)),
            ("BackfillSchedule", change(Need::Writer)),
        ],
    ),
    (
        "muster.workflow.v1.ApprovalService",
        &[
            ("ListApprovals", look(Need::Reader)),
            ("GetApproval", look(Need::Reader)),
            ("Approve", change(Need::Writer)),
            ("Reject", change(Need::Writer)),
        ],
    ),
    (
        "muster.workflow.v1.EventService",
        &[
            ("PublishEvents", change(Need::Writer)),
            // The log has what all runs have said.
            ("ListEvents", look(Need::Admin)),
            ("WatchEvents", look(Need::Admin)),
        ],
    ),
    (
        "muster.workflow.v1.BackupService",
        &[("Backup", change(Need::Admin))],
    ),
    (
        "grpc.health.v1.Health",
        &[("Check", look(Need::Nothing)), ("Watch", look(Need::Nothing))],
    ),
    (
        "grpc.reflection.v1.ServerReflection",
        &[("ServerReflectionInfo", look(Need::Reader))],
    ),
    (
        "grpc.reflection.v1alpha.ServerReflection",
        &[("ServerReflectionInfo", look(Need::Reader))],
    ),
];

/// Every HTTP path that is no method of gRPC, as its route is written.
const ROUTES: &[(&str, Rule)] = &[
    // JSON-RPC.
    ("/", look(Need::Operation)),
    ("/{target}", look(Need::Operation)),
    ("/{target}/", look(Need::Operation)),
    // HTTP+JSON.
    ("/message:send", look(Need::Operation)),
    ("/message:stream", look(Need::Operation)),
    ("/tasks", look(Need::Operation)),
    ("/tasks/{task}", look(Need::Operation)),
    ("/tasks/{task}/pushNotificationConfigs", look(Need::Operation)),
    (
        "/tasks/{task}/pushNotificationConfigs/{config}",
        look(Need::Operation),
    ),
    ("/extendedAgentCard", look(Need::Operation)),
    ("/{target}/message:send", look(Need::Operation)),
    ("/{target}/message:stream", look(Need::Operation)),
    ("/{target}/tasks", look(Need::Operation)),
    ("/{target}/tasks/{task}", look(Need::Operation)),
    (
        "/{target}/tasks/{task}/pushNotificationConfigs",
        look(Need::Operation),
    ),
    (
        "/{target}/tasks/{task}/pushNotificationConfigs/{config}",
        look(Need::Operation),
    ),
    ("/{target}/extendedAgentCard", look(Need::Operation)),
    // Discovery, which A2A wants public; the extended card is not.
    ("/.well-known/agent-card.json", look(Need::Nothing)),
    ("/{target}/.well-known/agent-card.json", look(Need::Nothing)),
    ("/.well-known/jwks.json", look(Need::Nothing)),
    // CloudEvents.
    ("/events", change(Need::Writer)),
];

/// The policy of a gRPC method by its path, `/package.Service/Method`.
#[must_use]
pub fn of_method(path: &str) -> Option<Rule> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let (_, methods) = TABLE.iter().find(|(name, _)| *name == service)?;
    methods
        .iter()
        .find(|(name, _)| *name == method)
        .map(|(_, rule)| *rule)
}

/// The policy of a plain HTTP route, as it is written.
#[must_use]
pub fn of_route(route: &str) -> Option<Rule> {
    ROUTES
        .iter()
        .find(|(path, _)| *path == route)
        .map(|(_, rule)| *rule)
}

/// The policy of an operation of A2A by its name.
#[must_use]
pub fn of_operation(name: &str) -> Rule {
    let methods = TABLE.iter().find(|(service, _)| *service == A2A);
    methods
        .and_then(|(_, methods)| methods.iter().find(|(method, _)| *method == name))
        .map_or(DEFAULT, |(_, rule)| *rule)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::super::caller::{Kind, Roles};
    use super::super::grants::Grants;
    use super::*;

    /// Every method of everything that is served.
    fn methods() -> Vec<String> {
        let mut all = Vec::new();
        for set in [
            muster_api::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ] {
            for file in prost_types::FileDescriptorSet::decode(set).unwrap().file {
                for service in &file.service {
                    for method in &service.method {
                        all.push(format!(
                            "/{}.{}/{}",
                            file.package(),
                            service.name(),
                            method.name()
                        ));
                    }
                }
            }
        }
        all
    }

    #[test]
    fn every_method_has_a_policy_and_every_policy_a_method() {
        let all = methods();
        for path in &all {
            assert!(
                of_method(path).is_some(),
                "{path} has no policy; add it to the table"
            );
        }
        for (service, methods) in TABLE {
            for (method, _) in *methods {
                let path = format!("/{service}/{method}");
                assert!(all.contains(&path), "{path} is in the table and is no method");
            }
        }
    }

    #[test]
    fn what_changes_something_is_not_for_readers() {
        for path in methods() {
            let rule = of_method(&path).unwrap();
            let is_change = matches!(rule.record, Record::Change | Record::Work);
            let for_readers = matches!(rule.need, Need::Nothing | Need::Reader | Need::Operation);
            assert!(!(is_change && for_readers), "{path}");
        }
    }

    proptest! {
        #[test]
        fn roles_only_add(one in 0_usize..32, more in 0_usize..32, index in any::<prop::sample::Index>()) {
            let of = |bits: usize| -> Roles {
                Role::ALL.into_iter().enumerate().filter(|(bit, _)| bits & (1 << bit) != 0).map(|(_, role)| role).collect()
            };
            let caller = |roles| Caller::new(Kind::EndUser, None, "x", roles, Grants::default());
            let (few, many, none) = (caller(of(one)), caller(of(one | more)), caller(Roles::default()));
            let all = methods();
            let path: &String = index.get(&all);
            let rule = of_method(path).unwrap();
            if rule.need.is_met_by(&few) {
                prop_assert!(rule.need.is_met_by(&many));
            }
            // Nobody without a role gets anything but what is for everybody, and an admin gets everything.
            prop_assert_eq!(rule.need.is_met_by(&none), rule.need == Need::Nothing);
            prop_assert!(rule.need.is_met_by(&Caller::anybody()));
        }

        #[test]
        fn what_is_not_in_the_table_is_for_admins(path in "/?[a-zA-Z./]{0,30}") {
            if of_method(&path).is_none() {
                prop_assert!(!DEFAULT.need.is_met_by(&Caller::new(
                    Kind::Service, None, "x", [Role::Service, Role::AgentWriter].into_iter().collect(), Grants::default()
                )));
            }
        }
    }
}
