//! Callers who go on calling while something is done to a part, and what all of them saw.

use std::time::Duration;

use muster_api::a2a::a2a_service_client::A2aServiceClient;
use muster_api::a2a::{
    ListTasksRequest, Message, Part as MessagePart, Role as A2aRole, SendMessageRequest, part,
};
use muster_runtime::clock::{Clock as _, SystemClock};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::BACK;
use crate::connect::{Channel, Endpoints};
use crate::failure::Failure;
use crate::readiness::check::{Evidence, Stop};
use crate::readiness::target::hands::Deed;
use crate::readiness::trial::{Made, Trial};

/// How long callers go on after a fault before it counts as over.
const CALM: Duration = Duration::from_secs(2);

/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);

/// How long they work before something is done.
const WARM: Duration = Duration::from_secs(1);

/// How many they are.
const CALLERS: usize = 4;

/// What callers do, and when something was done to a part.
#[derive(Clone)]
pub struct Calling {
    ways: Vec<Endpoints>,
    agent: String,
    /// Whether the agent is to work, or to read a list.
    sends: bool,
    made: Made,
    clock: SystemClock,
    /// When the fault was, once it was.
    fault: watch::Receiver<Option<Duration>>,
}

/// What callers saw since the fault.
#[derive(Debug, Default)]
pub struct Seen {
    /// Calls that ended.
    pub calls: u64,
    /// Those that failed.
    pub failed: u64,
    /// From the fault until the last call that failed had ended.
    pub until: Duration,
    /// What the last one said.
    pub last: String,
}

/// One call.
async fn call(client: &mut A2aServiceClient<Channel>, calling: &Calling) -> Result<(), String> {
    let answer = async {
        if calling.sends {
            let text = part::Content::Text("Seattle 2014-03-01".to_owned());
            let message = Message {
                message_id: calling.made.name(),
                role: A2aRole::User.into(),
                parts: vec![MessagePart {
                    content: Some(text),
                    ..MessagePart::default()
                }],
                ..Message::default()
            };
            let request = SendMessageRequest {
                tenant: calling.agent.clone(),
                message: Some(message),
                ..SendMessageRequest::default()
            };
            client.send_message(request).await.map(|_| ())
        } else {
            let request = ListTasksRequest {
                tenant: calling.agent.clone(),
                page_size: Some(1),
                ..ListTasksRequest::default()
            };
            client.list_tasks(request).await.map(|_| ())
        }
    };
    let answer = tokio::time::timeout(CALL, answer).await;
    answer
        .map_err(|_| format!("no answer within {} s", CALL.as_secs()))?
        .map_err(|status| status.message().to_owned())
}

/// One call after the other; after a failure by the next way. Ends some time after the fault, once no call has failed for a while.
async fn caller(calling: Calling) -> Result<Seen, Failure> {
    let clients: Result<Vec<_>, Failure> = calling.ways.iter().map(Endpoints::agents).collect();
    let mut clients = clients?;
    let mut seen = Seen::default();
    let (mut way, count) = (0, clients.len().max(1));
    loop {
        let client = clients.get_mut(way % count);
        let client = client.ok_or_else(|| Failure::failed("there is no router"))?;
        let failed = call(client, &calling).await.err();
        let fault = *calling.fault.borrow();
        let Some(fault) = fault else {
            match failed {
                None => continue,
                Some(what) => {
                    return Err(Failure::failed(format!(
                        "calls fail before anything was done: {what}"
                    )));
                }
            }
        };
        seen.calls += 1;
        let now = calling.clock.monotonic().saturating_sub(fault);
        match failed {
            None if now >= seen.until + CALM => return Ok(seen),
            None => {}
            Some(what) => {
                seen.failed += 1;
                seen.until = now;
                seen.last = what;
                way += 1;
                if now >= BACK {
                    return Ok(seen);
                }
            }
        }
    }
}

/// Callers by these ways while something is done to a part; what all of them saw together.
pub async fn calls(
    trial: &mut Trial,
    calling: Calling,
    fault: &watch::Sender<Option<Duration>>,
    deed: Deed,
    part: &str,
) -> Result<Seen, Stop> {
    let clock = calling.clock;
    let mut working = JoinSet::new();
    for _ in 0..CALLERS {
        working.spawn(caller(calling.clone()));
    }
    tokio::time::sleep(WARM).await;
    fault.send_replace(Some(clock.monotonic()));
    trial.target.act(deed, part).await?;
    let mut seen = Seen::default();
    while let Some(ended) = working.join_next().await {
        let one = ended.map_err(|error| Stop::failed(error.to_string()))??;
        seen.calls += one.calls;
        seen.failed += one.failed;
        if one.until > seen.until {
            seen.until = one.until;
            seen.last = one.last;
        }
    }
    Ok(seen)
}

/// What callers are to do.
pub fn calling(
    trial: &Trial,
    ways: Vec<Endpoints>,
    agent: &str,
    sends: bool,
) -> (Calling, watch::Sender<Option<Duration>>) {
    let (sender, fault) = watch::channel(None);
    let calling = Calling {
        ways,
        agent: agent.to_owned(),
        sends,
        made: trial.made.clone(),
        clock: SystemClock::default(),
        fault,
    };
    (calling, sender)
}

/// What was seen of calls, beside what is stated.
pub fn of_calls(seen: &Seen, stated: Duration, more: &str) -> Evidence {
    Evidence::new(format!(
        "RTO {:.2} s (stated: {} s), {} of {} calls failed meanwhile{more}",
        seen.until.as_secs_f64(),
        stated.as_secs(),
        seen.failed,
        seen.calls
    ))
    .figure("rtoSeconds", seen.until.as_secs_f64())
    .figure("statedRtoSeconds", stated.as_secs())
    .figure("calls", seen.calls)
    .figure("failedCalls", seen.failed)
}
