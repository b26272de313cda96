//! Where a call goes and who it says it is, with all expressions evaluated.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::document::{self, Scheme};

/// An address on the network, and how to authenticate there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Destination {
    /// The address, with markers where secrets stand.
    pub uri: String,
    /// How to authenticate there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
}

/// A way to authenticate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Authentication {
    /// Which.
    pub scheme: Scheme,
    /// With what.
    #[serde(flatten)]
    pub properties: Properties,
}

impl Destination {
    /// What a document says without expressions and variables.
    #[must_use]
    pub fn written(destination: &document::Destination) -> Option<Self> {
        let authentication = match &destination.authentication {
            None => None,
            Some(authentication) => Some(Authentication {
                scheme: authentication.scheme,
                properties: match &authentication.properties {
                    document::AuthenticationProperties::Secret(name) => Properties::Secret(name.clone()),
                    document::AuthenticationProperties::Given(template) => {
                        Properties::With(Arc::new(template.literal()?.clone()))
                    }
                },
            }),
        };
        Some(Self {
            uri: destination.uri.fixed()?.to_owned(),
            authentication,
        })
    }
}

/// What a scheme needs, such as a user's name and password.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Properties {
    /// From the document, with markers where secrets stand.
    With(Arc<Value>),
    /// The secret with this name holds them, as an object.
    Secret(String),
}

/// A document outside of the workflow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// Its name, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it is.
    pub endpoint: Destination,
}

/// An address for people: without what may be secret in it.
#[must_use]
pub fn shown(uri: &str) -> String {
    let uri = crate::secret::plain(uri);
    let bare = uri.split(['?', '#']).next().unwrap_or_default();
    match bare.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find('/').unwrap_or(rest.len());
            let (authority, path) = rest.split_at(end);
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => bare.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_address_for_people_holds_no_credentials() {
        for (uri, expected) in [
            ("https://a:b@c.example/d?token=x#y", "https://c.example/d"),
            ("http://c.example", "http://c.example"),
            ("http://c.example/a@b", "http://c.example/a@b"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(shown(uri), expected);
        }
    }

    #[test]
    fn the_json_form_is_stable() {
        let destination = Destination {
            uri: "http://a".into(),
            authentication: Some(Authentication {
                scheme: Scheme::Oauth2,
                properties: Properties::Secret("x".into()),
            }),
        };
        let json = json!({"uri": "http://a", "authentication": {"scheme": "oauth2", "secret": "x"}});
        assert_eq!(serde_json::to_value(&destination).unwrap(), json);
        assert_eq!(serde_json::from_value::<Destination>(json).unwrap(), destination);
        let given = json!({"scheme": "basic", "with": {"username": "u", "password": "p"}});
        let read: Authentication = serde_json::from_value(given.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), given);
    }
}
