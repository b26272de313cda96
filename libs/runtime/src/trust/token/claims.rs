//! What a token says of its caller: roles, and what it may reach.

use std::sync::Arc;

use muster_jose::token::{Refusal, Verified};
use serde_json::{Map, Value};

use super::Config;
use crate::trust::caller::{Caller, Kind, Role, Roles};
use crate::trust::grants::Grants;

/// A caller out of the claims of a token that is good.
///
/// # Errors
/// Names the claim that is malformed.
pub(super) fn caller_of(config: &Config, verified: &Verified) -> Result<Arc<Caller>, Refusal> {
    let claims = &verified.claims;
    let names = |claim: &str, wrong: &'static str| names_in(claims, claim).ok_or(Refusal::Claim(wrong));
    // Roles that are not ours are another application's.
    let roles: Roles = names(&config.roles_claim, "roles")?
        .unwrap_or_default()
        .iter()
        .filter_map(|name| Role::from_name(name))
        .collect();
    let list = |names: Option<Vec<String>>| names.map(|names| names.into_iter().map(Arc::from).collect());
    let mut grants = Grants {
        targets: list(names(&config.targets_claim, "targets")?),
        namespaces: list(names(&config.namespaces_claim, "namespaces")?),
    };
    if grants.problem().is_some() {
        return Err(Refusal::Claim("targets or namespaces"));
    }
    if let Some(more) = config.grants.get(&verified.subject) {
        grants = grants.and(more);
    }
    let issuer = claims.get("iss").and_then(Value::as_str);
    let kind = if roles.has(Role::Service) {
        Kind::Service
    } else {
        Kind::EndUser
    };
    Ok(Caller::new(kind, issuer, &verified.subject, roles, grants))
}

/// The names in a claim: `None` where it is malformed, `Some(None)` where there is none.
#[expect(clippy::option_option, reason = "absent and malformed are two things")]
fn names_in(claims: &Map<String, Value>, path: &str) -> Option<Option<Vec<String>>> {
    // A claim of exactly that name goes first: names that are URLs have dots.
    let mut found = claims.get(path);
    if found.is_none() {
        let mut parts = path.split('.');
        found = parts.next().and_then(|part| claims.get(part));
        for part in parts {
            found = found.and_then(|value| value.get(part));
        }
    }
    match found {
        None | Some(Value::Null) => Some(None),
        Some(Value::String(names)) => Some(Some(names.split_whitespace().map(str::to_owned).collect())),
        Some(Value::Array(names)) => names
            .iter()
            .map(|name| name.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .map(Some),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_become_roles_and_grants() {
        let config = Config {
            roles_claim: "realm.roles".to_owned(),
            grants: [(
                "ada".to_owned(),
                Grants {
                    targets: Some(vec![Arc::from("weather")]),
                    namespaces: None,
                },
            )]
            .into(),
            ..Config::default()
        };
        let of = |claims: Value| {
            let Value::Object(claims) = claims else {
                unreachable!()
            };
            caller_of(
                &config,
                &Verified {
                    claims,
                    subject: "ada".to_owned(),
                    expires: 0,
                },
            )
        };
        let ada = of(json!({
            "iss": "us", "realm": { "roles": ["agent-writer", "other"] }, "muster_targets": "weather planning",
            "muster_namespaces": ["a*"],
        }))
        .unwrap();
        assert!(ada.roles.has(Role::AgentWriter) && !ada.roles.has(Role::Admin));
        assert!(ada.grants.reaches_target("weather") && !ada.grants.reaches_target("planning"));
        assert!(ada.grants.reaches_namespace("ab") && !ada.grants.reaches_namespace("b"));
        assert_eq!(&*ada.key(), "user:us:ada");
        assert_eq!(
            of(json!({ "realm": { "roles": [1] } })),
            Err(Refusal::Claim("roles"))
        );
        let service = of(json!({ "realm": { "roles": "service" } })).unwrap();
        assert_eq!(service.kind, Kind::Service);
    }
}
