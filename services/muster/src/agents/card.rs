//! `muster agents card`: cards as they are served, and who has signed them.

use std::path::Path;

use muster_a2a::card::trust::Keys;
use muster_a2a::join::{self, Card, Fetched};
use muster_rpc::outbound::{self, Outbound};
use serde_json::json;
use url::Url;

use crate::cli::CardCommand;
use crate::failure::Failure;
use crate::output::Output;

/// Runs `muster agents card …`.
pub async fn run(command: CardCommand, output: &Output) -> Result<(), Failure> {
    match command {
        CardCommand::Verify { card, jwks } => verify(&card, &jwks, output).await,
    }
}

async fn verify(place: &str, jwks: &Path, output: &Output) -> Result<(), Failure> {
    let wrong = |what: String| Failure::usage(format!("--jwks {}: {what}", jwks.display()));
    let keys = std::fs::read_to_string(jwks).map_err(|error| wrong(error.to_string()))?;
    let keys = Keys::parse(&keys).map_err(wrong)?;
    let card = if place.starts_with("http://") || place.starts_with("https://") {
        let url = join::address(place).map_err(Failure::usage)?;
        fetch(&outbound()?, &url).await?.card
    } else {
        let body = std::fs::read(place).map_err(|error| Failure::usage(format!("{place}: {error}")))?;
        muster_a2a::card::parse(&body).map_err(|what| Failure::usage(format!("{place}: {what}")))?
    };
    let index = keys
        .verify(&card)
        .map_err(|problem| Failure::failed(format!("the card of '{}': {problem}", card.name)))?;
    if output.is_json() {
        output.json(&json!({ "verified": true, "name": card.name, "signature": index }));
    } else {
        output.line(&format!(
            "the card of '{}' is signed by a key of {} (signatures[{index}])",
            card.name,
            jwks.display()
        ));
    }
    Ok(())
}

/// The way to cards: whoever types an address may go there.
pub fn outbound() -> Result<Outbound, Failure> {
    let everywhere = outbound::Config {
        allow: vec!["*".to_owned(), "0.0.0.0/0".to_owned(), "::/0".to_owned()],
        ..outbound::Config::default()
    };
    Outbound::new(&everywhere, "--card").map_err(|error| Failure::failed(error.to_string()))
}

/// The card at this address.
pub async fn fetch(outbound: &Outbound, url: &Url) -> Result<Box<Card>, Failure> {
    let found = match join::fetch(outbound, url, None).await {
        Ok(Fetched::Card(found)) => Ok(found),
        Ok(Fetched::Unchanged) => Err("the agent answered 304 to who has no card".to_owned()),
        Err(what) => Err(what),
    };
    found.map_err(|what| Failure::unavailable(format!("{url}: {what}")))
}
