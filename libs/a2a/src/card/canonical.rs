//! The bytes of a card that are signed: JSON in the canonical form of RFC 8785, without the signatures.
//!
//! What a canonical form must not depend on is how the card came here, so it is made from the message and not from the
//! text: fields that have presence (`optional`, messages) are there when they are set, others when they are not the default,
//! and fields that this version of A2A does not know are in no form. On that, two readings of the standard are in use:
//!
//! - **the standard's own** (A2A 1.0, 8.4.1): fields that are REQUIRED are always there, also where they are empty;
//! - **that of the official SDKs**: what is empty (texts, lists, objects) is nowhere, down to the parameters of extensions.
//!
//! They are the same for most cards. Where they differ a card is signed in both, and a signature over either is good: what
//! one form cannot tell apart is nothing but emptiness.

use std::sync::LazyLock;

use muster_api::a2a::AgentCard;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

/// How deep a card may be nested; parameters of extensions may be nested as a caller likes.
const DEEPEST: usize = 64;

/// The fields that the standard's text calls REQUIRED, by message.
const REQUIRED: &[(&str, &[&str])] = &[
    (
        "AgentCard",
        &[
            "name",
            "description",
            "supportedInterfaces",
            "version",
            "capabilities",
            "defaultInputModes",
            "defaultOutputModes",
            "skills",
        ],
    ),
    ("AgentInterface", &["url", "protocolBinding", "protocolVersion"]),
    ("AgentProvider", &["url", "organization"]),
    ("AgentSkill", &["id", "name", "description", "tags"]),
    ("APIKeySecurityScheme", &["location", "name"]),
    ("HTTPAuthSecurityScheme", &["scheme"]),
    ("OAuth2SecurityScheme", &["flows"]),
    ("OpenIdConnectSecurityScheme", &["openIdConnectUrl"]),
    (
        "AuthorizationCodeOAuthFlow",
        &["authorizationUrl", "tokenUrl", "scopes"],
    ),
    ("ClientCredentialsOAuthFlow", &["tokenUrl", "scopes"]),
    (
        "DeviceCodeOAuthFlow",
        &["deviceAuthorizationUrl", "tokenUrl", "scopes"],
    ),
];

static CARD: LazyLock<Result<MessageDescriptor, String>> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(muster_api::FILE_DESCRIPTOR_SET).map_err(|error| error.to_string())?;
    pool.get_message_by_name("lf.a2a.v1.AgentCard")
        .ok_or_else(|| "the contract has no card".to_owned())
});

/// The canonical forms of a card: one, or two where they differ, the standard's own first.
///
/// # Errors
/// The card holds what JSON cannot, or is nested too deeply.
pub fn forms(card: &AgentCard) -> Result<Vec<Vec<u8>>, String> {
    let descriptor = CARD.as_ref().map_err(Clone::clone)?;
    let message = DynamicMessage::decode(descriptor.clone(), card.encode_to_vec().as_slice())
        .map_err(|error| error.to_string())?;
    let mut value = serde_json::to_value(&message).map_err(|error| error.to_string())?;
    if let Value::Object(fields) = &mut value {
        fields.remove("signatures");
    }
    check_depth(&value, 1)?;
    let mut complete = value.clone();
    complete_fields(&mut complete, descriptor);
    let sparse = without_empty(value).unwrap_or_else(|| json!({}));
    let mut forms = vec![bytes(&complete)?];
    let sparse = bytes(&sparse)?;
    if forms[0] != sparse {
        forms.push(sparse);
    }
    Ok(forms)
}

fn bytes(value: &Value) -> Result<Vec<u8>, String> {
    serde_json_canonicalizer::to_vec(value).map_err(|error| error.to_string())
}

fn check_depth(value: &Value, depth: usize) -> Result<(), String> {
    if depth > DEEPEST {
        return Err(format!("it is nested more than {DEEPEST} levels deep"));
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| check_depth(item, depth + 1)),
        Value::Object(fields) => fields
            .values()
            .try_for_each(|field| check_depth(field, depth + 1)),
        _ => Ok(()),
    }
}

/// Adds the REQUIRED fields that are not there, because they have their default.
fn complete_fields(value: &mut Value, message: &MessageDescriptor) {
    let Value::Object(fields) = value else { return };
    // Structures of JSON itself have no fields of their own.
    if message.package_name() != "lf.a2a.v1" {
        return;
    }
    let required = REQUIRED
        .iter()
        .find(|(name, _)| *name == message.name())
        .map_or(&[][..], |(_, required)| *required);
    for field in message.fields() {
        let name = field.json_name();
        if required.contains(&name) {
            let default = || {
                if field.is_list() {
                    json!([])
                } else if field.is_map() || matches!(field.kind(), Kind::Message(_)) {
                    json!({})
                } else {
                    json!("")
                }
            };
            fields.entry(name).or_insert_with(default);
        }
        let Some(found) = fields.get_mut(name) else {
            continue;
        };
        let Kind::Message(kind) = field.kind() else {
            continue;
        };
        match found {
            Value::Array(items) => items.iter_mut().for_each(|item| complete_fields(item, &kind)),
            Value::Object(entries) if field.is_map() => {
                if let Kind::Message(kind) = kind.map_entry_value_field().kind() {
                    entries
                        .values_mut()
                        .for_each(|entry| complete_fields(entry, &kind));
                }
            }
            found => complete_fields(found, &kind),
        }
    }
}

/// Without empty texts, lists and objects; nothing where nothing is left.
fn without_empty(value: Value) -> Option<Value> {
    match value {
        Value::String(text) if text.is_empty() => None,
        Value::Array(items) => {
            let kept: Vec<Value> = items.into_iter().filter_map(without_empty).collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        Value::Object(fields) => {
            let kept: Map<String, Value> = fields
                .into_iter()
                .filter_map(|(name, value)| Some((name, without_empty(value)?)))
                .collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        Value::Null => None,
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use muster_api::a2a::{
        AgentCapabilities, AgentExtension, AgentSkill, ClientCredentialsOAuthFlow, OAuth2SecurityScheme,
        OAuthFlows, SecurityScheme, o_auth_flows, security_scheme,
    };
    use prost_types::value::Kind as ValueKind;

    use super::*;

    fn texts(card: &AgentCard) -> Vec<String> {
        forms(card)
            .unwrap()
            .into_iter()
            .map(|form| String::from_utf8(form).unwrap())
            .collect()
    }

    #[test]
    fn the_standards_example_has_its_form() {
        let card = AgentCard {
            name: "Example Agent".to_owned(),
            capabilities: Some(AgentCapabilities {
                streaming: Some(false),
                push_notifications: Some(false),
                ..AgentCapabilities::default()
            }),
            ..AgentCard::default()
        };
        let texts = texts(&card);
        assert_eq!(
            texts[0],
            r#"{"capabilities":{"pushNotifications":false,"streaming":false},"defaultInputModes":[],"defaultOutputModes":[],"description":"","name":"Example Agent","skills":[],"supportedInterfaces":[],"version":""}"#
        );
        assert_eq!(
            texts[1],
            r#"{"capabilities":{"pushNotifications":false,"streaming":false},"name":"Example Agent"}"#
        );
    }

    #[test]
    fn required_fields_are_completed_at_any_depth() {
        let flow = OAuthFlows {
            flow: Some(o_auth_flows::Flow::ClientCredentials(
                ClientCredentialsOAuthFlow::default(),
            )),
        };
        let scheme = SecurityScheme {
            scheme: Some(security_scheme::Scheme::Oauth2SecurityScheme(
                OAuth2SecurityScheme {
                    flows: Some(flow),
                    ..OAuth2SecurityScheme::default()
                },
            )),
        };
        let card = AgentCard {
            skills: vec![AgentSkill::default()],
            security_schemes: [("s".to_owned(), scheme)].into(),
            ..AgentCard::default()
        };
        let text = &texts(&card)[0];
        assert!(
            text.contains(r#""skills":[{"description":"","id":"","name":"","tags":[]}]"#),
            "{text}"
        );
        assert!(
            text.contains(r#""flows":{"clientCredentials":{"scopes":{},"tokenUrl":""}}"#),
            "{text}"
        );
    }

    #[test]
    fn numbers_and_keys_are_as_rfc_8785_has_them() {
        let value: Value = serde_json::from_str(
            r#"{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001, 1],
                "\u20ac": "Euro Sign", "\r": "Carriage Return", "\ud83d\ude00": "Emoji", "\ufb33": "Hebrew"}"#,
        )
        .unwrap();
        assert_eq!(
            String::from_utf8(bytes(&value).unwrap()).unwrap(),
            "{\"\\r\":\"Carriage Return\",\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27,1],\"€\":\"Euro Sign\",\
             \"😀\":\"Emoji\",\"\u{fb33}\":\"Hebrew\"}"
        );
    }

    #[test]
    fn what_is_nested_without_end_is_refused() {
        let mut nested = prost_types::Value::from(1.0);
        for _ in 0..40 {
            let list = prost_types::ListValue { values: vec![nested] };
            nested = prost_types::Value {
                kind: Some(ValueKind::ListValue(list)),
            };
            let fields = [("a".to_owned(), nested)].into();
            nested = prost_types::Value {
                kind: Some(ValueKind::StructValue(prost_types::Struct { fields })),
            };
        }
        let card = AgentCard {
            capabilities: Some(AgentCapabilities {
                extensions: vec![AgentExtension {
                    params: Some(prost_types::Struct {
                        fields: [("a".to_owned(), nested)].into(),
                    }),
                    ..AgentExtension::default()
                }],
                ..AgentCapabilities::default()
            }),
            ..AgentCard::default()
        };
        assert!(forms(&card).is_err());
    }
}
