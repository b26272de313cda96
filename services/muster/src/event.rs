//! `muster event`: publish events to the runs that listen for them, and look at the log.

use muster_api::workflow as proto;
use muster_api::workflow::event_service_client::EventServiceClient;
use serde_json::{Map, Value, json};

use crate::cli::{EventCommand, EventFilterArguments, PublishArguments};
use crate::connect::{Channel, Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;
use crate::output::listing::Listing;
use crate::read;

/// Largest file with the data of an event that is read; what the engine takes is less, and it says so.
const MAX_DATA_BYTES: u64 = 4 << 20;

/// Runs `muster event …`.
pub async fn run(command: EventCommand, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    match command {
        EventCommand::Publish(arguments) => publish(arguments, endpoints, output).await,
        EventCommand::List { filter, limit } => list(filter, limit, endpoints, output).await,
        EventCommand::Watch { filter } => watch(filter, endpoints, output).await,
    }
}

fn client(endpoints: &Endpoints) -> Result<EventServiceClient<Channel>, Failure> {
    Ok(EventServiceClient::new(endpoints.channel(Service::Engine)?))
}

async fn publish(arguments: PublishArguments, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let event = event(&arguments)?;
    let request = proto::PublishEventsRequest {
        events_json: vec![event.to_string()],
    };
    let answer = client(endpoints)?
        .publish_events(request)
        .await
        .map_err(|status| endpoints.failure(Service::Engine, &status))?
        .into_inner();
    for event in answer.events {
        let proto::Published {
            position,
            id,
            source,
            duplicate,
        } = event;
        if output.is_json() {
            output.json(&json!({"position": position, "id": id, "source": source, "duplicate": duplicate}));
        } else if duplicate {
            output.line(&format!(
                "event {id} of {source} was in the log before, at position {position}"
            ));
        } else {
            output.line(&format!(
                "event {id} of {source} is in the log, at position {position}"
            ));
        }
    }
    Ok(())
}

/// The event that the arguments describe.
fn event(arguments: &PublishArguments) -> Result<Value, Failure> {
    let mut event = match &arguments.event {
        Some(text) => match json_of("--event", text)? {
            Value::Object(event) => event,
            _ => return Err(Failure::usage("--event: an event is a JSON object")),
        },
        None => Map::new(),
    };
    let given = [
        ("type", &arguments.r#type),
        ("source", &arguments.source),
        ("id", &arguments.id),
        ("subject", &arguments.subject),
        ("time", &arguments.time),
        ("datacontenttype", &arguments.content_type),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            event.insert(name.to_owned(), Value::from(value.as_str()));
        }
    }
    event.entry("source").or_insert_with(|| "/muster/cli".into());
    for attribute in &arguments.attribute {
        let (name, value) = attribute
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("--attribute {attribute}: write NAME=VALUE")))?;
        event.insert(name.to_owned(), Value::from(value));
    }
    if let Some(data) = &arguments.data {
        event.insert("data".to_owned(), json_of("--data", data)?);
    }
    if let Some(text) = &arguments.text {
        event.insert("data".to_owned(), Value::from(text.as_str()));
        event
            .entry("datacontenttype")
            .or_insert_with(|| "text/plain".into());
    }
    Ok(Value::Object(event))
}

/// JSON as it stands, or in the file after `@`.
fn json_of(name: &str, text: &str) -> Result<Value, Failure> {
    let text = match text.strip_prefix('@') {
        Some(file) => read::bounded_text(&format!("{name} {file}"), file.as_ref(), MAX_DATA_BYTES)?,
        None => text.to_owned(),
    };
    serde_json::from_str(&text).map_err(|error| Failure::usage(format!("{name}: not JSON: {error}")))
}

async fn list(
    filter: EventFilterArguments,
    limit: u32,
    endpoints: &Endpoints,
    output: &Output,
) -> Result<(), Failure> {
    let mut client = client(endpoints)?;
    let Listing {
        entries: events,
        more,
    } = Listing::gather(limit, async |page_size, page_token| {
        let request = proto::ListEventsRequest {
            r#type: filter.r#type.clone().unwrap_or_default(),
            source: filter.source.clone().unwrap_or_default(),
            from_position: filter.from.unwrap_or_default(),
            page_size,
            page_token,
        };
        let page = client
            .list_events(request)
            .await
            .map_err(|status| endpoints.failure(Service::Engine, &status))?
            .into_inner();
        Ok((page.events, page.next_page_token))
    })
    .await?;
    let after = events.last().map(|event| event.position.saturating_add(1));
    if output.is_json() {
        let events: Vec<Value> = events.iter().map(event_json).collect();
        output.json(&json!({"events": events, "more": more}));
        return Ok(());
    }
    let rows = events.into_iter().map(|event| {
        let data = serde_json::from_str::<Value>(&event.event_json).unwrap_or_default();
        let data = data.get("data").map(shortened).unwrap_or_default();
        [
            event.position.to_string(),
            event.r#type,
            event.source,
            event.id,
            data,
        ]
    });
    output.table(["position", "type", "source", "id", "data"], rows.collect());
    if let Some(after) = after.filter(|_| more) {
        output.line(&format!(
            "there are more, and newer ones; `--from {after}` or `--limit` shows them, `muster event watch` follows"
        ));
    }
    Ok(())
}

async fn watch(filter: EventFilterArguments, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let request = proto::WatchEventsRequest {
        r#type: filter.r#type.unwrap_or_default(),
        source: filter.source.unwrap_or_default(),
        from_position: filter.from,
    };
    let failed = |status| endpoints.failure(Service::Engine, &status);
    let mut stream = client(endpoints)?
        .watch_events(request)
        .await
        .map_err(failed)?
        .into_inner();
    while let Some(answer) = stream.message().await.map_err(failed)? {
        let Some(event) = answer.event else { continue };
        if output.is_json() {
            output.json_line(&event_json(&event));
        } else {
            output.line(&format!("{:>8}  {}", event.position, event.event_json));
        }
    }
    Ok(())
}

fn event_json(event: &proto::LoggedEvent) -> Value {
    json!({
        "position": event.position,
        "receivedAt": crate::workflow::time_json(event.received_at.as_ref()),
        "event": serde_json::from_str::<Value>(&event.event_json).unwrap_or_default(),
    })
}

/// The beginning of a value, for a table.
fn shortened(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    let mut shown: String = text.chars().take(LONGEST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
