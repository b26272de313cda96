//! Whose cards are trusted: signatures against the keys that an operator has named.
//!
//! Keys come from a file alone. A signature may name an address of keys (`jku`), which is whatever its maker likes, and is never
//! followed. The file is read again when it changes. A card is good when one of its signatures is by a trusted key; else
//! each signature has its own problem, named by its place.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_api::a2a::{AgentCard, AgentCardSignature};
use muster_jose::key::{self, Public};
use muster_rpc::reread::Reread;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::canonical;
use super::sign::signing_input;

/// Largest file of keys, in bytes.
const LARGEST_FILE: u64 = 1024 * 1024;
/// Most signatures of a card that are looked at.
const MOST_SIGNATURES: usize = 16;

/// Section `card_trust` of whoever takes cards in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A JSON Web Key Set with the public keys whose signatures are good; nothing is checked where there is none.
    pub jwks_file: Option<PathBuf>,
    /// What becomes of a card without a good signature.
    pub policy: Policy,
}

/// What becomes of a card without a good signature.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// It is refused.
    #[default]
    Require,
    /// It is taken, and the log says so.
    Warn,
    /// Nothing is checked.
    Off,
}

/// Keys whose signatures are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys(Vec<Public>);

/// What is wrong with a card's signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which signature; `None` where there is none, or where it is about none.
    pub signature: Option<usize>,
    /// What is wrong.
    pub what: String,
}

impl Problem {
    /// The field at fault, below the card.
    #[must_use]
    pub fn field(&self) -> String {
        self.signature
            .map_or_else(|| "signatures".to_owned(), |index| format!("signatures[{index}]"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.field(), self.what)
    }
}

impl Keys {
    /// Reads a JSON Web Key Set; keys of kinds that are not understood are left out.
    ///
    /// # Errors
    /// It is none, or none of its keys can be used.
    pub fn parse(text: &str) -> Result<Self, String> {
        key::key_set(text).map(Self)
    }

    /// The place of the first good signature of a card.
    ///
    /// # Errors
    /// None is good: what is wrong with the first, or that there is none.
    pub fn verify(&self, card: &AgentCard) -> Result<usize, Problem> {
        let about_none = |what: String| Problem {
            signature: None,
            what,
        };
        if card.signatures.is_empty() {
            return Err(about_none(
                "are missing; sign the card with a key that is trusted here".to_owned(),
            ));
        }
        let forms = canonical::forms(card).map_err(|what| {
            about_none(format!(
                "cannot be checked, because the card has no canonical form: {what}"
            ))
        })?;
        let mut first = None;
        for (index, signature) in card.signatures.iter().take(MOST_SIGNATURES).enumerate() {
            match self.check(&forms, signature) {
                Ok(()) => return Ok(index),
                Err(what) => {
                    first.get_or_insert(Problem {
                        signature: Some(index),
                        what,
                    });
                }
            }
        }
        Err(first.unwrap_or_else(|| about_none("are none".to_owned())))
    }

    fn check(&self, forms: &[Vec<u8>], signature: &AgentCardSignature) -> Result<(), String> {
        let header = protected(&signature.protected)?;
        let text = |name: &str| header.get(name).and_then(Value::as_str);
        if header.contains_key("crit") {
            return Err("has a critical header, of which none is understood".to_owned());
        }
        let algorithm = text("alg").ok_or("says no algorithm (`alg`) in its protected header")?;
        let made = URL_SAFE_NO_PAD
            .decode(&signature.signature)
            .map_err(|_| "is not in base64url")?;
        let id = text("kid");
        let named = |key: &&Public| id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        let mut candidates = self
            .0
            .iter()
            .filter(named)
            .filter(|key| key.has_algorithm(algorithm))
            .peekable();
        if candidates.peek().is_none() {
            let id = id.unwrap_or("none");
            return Err(format!(
                "is by a key that is not trusted here (`kid` '{}', `alg` '{}')",
                shown(id),
                shown(algorithm)
            ));
        }
        let inputs: Vec<String> = forms
            .iter()
            .map(|form| signing_input(&signature.protected, form))
            .collect();
        let is_good = candidates.any(|key| inputs.iter().any(|input| key.verifies(input.as_bytes(), &made)));
        if is_good {
            Ok(())
        } else {
            Err("does not fit the card: it was changed after it was signed, or signed by another key of that name".to_owned())
        }
    }
}

fn protected(text: &str) -> Result<Map<String, Value>, String> {
    let wrong = || "has a protected header that is no JSON in base64url".to_owned();
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
    serde_json::from_slice(&bytes).map_err(|_| wrong())
}

/// A name of a stranger's, shortened.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// What is done with the cards that are taken in.
#[derive(Debug)]
pub struct Trust {
    keys: Reread<Keys>,
    policy: Policy,
}

impl Trust {
    /// What the configuration at `section` says; `None` where nothing is checked.
    ///
    /// # Errors
    /// Names the setting and says what is wrong with the file.
    pub fn load(config: &Config, section: &str, now: Duration) -> Result<Option<Self>, String> {
        let Some(path) = config.jwks_file.as_ref().filter(|_| config.policy != Policy::Off) else {
            return Ok(None);
        };
        let keys = Reread::new(path, LARGEST_FILE, Keys::parse);
        keys.get(now)
            .map_err(|what| format!("{section}.jwks_file: {what}"))?;
        Ok(Some(Self {
            keys,
            policy: config.policy,
        }))
    }

    /// Looks at a card's signatures. Says what is wrong with one that is taken all the same.
    ///
    /// # Errors
    /// The card is to be refused.
    pub fn check(&self, card: &AgentCard, now: Duration) -> Result<Option<Problem>, Problem> {
        let verified = match self.keys.get(now) {
            Ok(keys) => keys.verify(card).map(drop),
            Err(what) => Err(Problem {
                signature: None,
                what: format!("cannot be checked: {what}"),
            }),
        };
        match (verified, self.policy) {
            (Ok(()), _) => Ok(None),
            (Err(problem), Policy::Require) => Err(problem),
            (Err(problem), Policy::Warn | Policy::Off) => Ok(Some(problem)),
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_api::a2a::{AgentCapabilities, AgentExtension, AgentInterface, AgentProvider, AgentSkill};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::card::sign::tests::signer;
    use crate::card::{Served, parse};

    fn card() -> AgentCard {
        let fields = [
            ("number".to_owned(), prost_types::Value::from(1.5)),
            ("text".to_owned(), prost_types::Value::from("grüße".to_owned())),
        ];
        AgentCard {
            name: "Signed".to_owned(),
            description: "An agent whose card is signed".to_owned(),
            version: "1.2.3".to_owned(),
            supported_interfaces: vec![AgentInterface {
                url: "http://a.example/".to_owned(),
                protocol_binding: "JSONRPC".to_owned(),
                protocol_version: "1.0".to_owned(),
                tenant: "t".to_owned(),
            }],
            provider: Some(AgentProvider {
                url: "http://example".to_owned(),
                organization: "Example".to_owned(),
            }),
            capabilities: Some(AgentCapabilities {
                streaming: Some(true),
                push_notifications: Some(false),
                extensions: vec![AgentExtension {
                    uri: "urn:x".to_owned(),
                    description: "x".to_owned(),
                    required: true,
                    params: Some(prost_types::Struct {
                        fields: fields.into(),
                    }),
                }],
                ..AgentCapabilities::default()
            }),
            default_input_modes: vec!["text/plain".to_owned()],
            default_output_modes: vec!["text/plain".to_owned()],
            skills: vec![AgentSkill {
                id: "s".to_owned(),
                name: "S".to_owned(),
                description: "Does s".to_owned(),
                tags: vec!["tag".to_owned()],
                examples: vec!["do s".to_owned()],
                ..AgentSkill::default()
            }],
            ..AgentCard::default()
        }
    }

    fn keys(signer: &crate::card::sign::Signer) -> Keys {
        Keys::parse(&signer.key_set().to_string()).unwrap()
    }

    /// The places of all texts, numbers and truths.
    fn leaves(value: &Value, place: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    leaves(
                        value,
                        &format!("{place}/{}", name.replace('~', "~0").replace('/', "~1")),
                        found,
                    );
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    leaves(value, &format!("{place}/{index}"), found);
                }
            }
            _ => found.push(place.to_owned()),
        }
    }

    #[test]
    fn what_is_signed_is_verified_after_it_was_served() {
        for algorithm in ["ES256", "EdDSA"] {
            let signer = signer(algorithm, "k1");
            for mut card in [card(), AgentCard::default()] {
                signer.sign(&mut card).unwrap();
                let served = Served::new(&card).unwrap();
                let read = parse(served.body.as_bytes()).unwrap();
                assert_eq!(keys(&signer).verify(&read), Ok(0));
                // Either form is enough.
                for index in 0..card.signatures.len() {
                    let mut one = read.clone();
                    one.signatures = vec![card.signatures[index].clone()];
                    assert_eq!(keys(&signer).verify(&one), Ok(0));
                }
            }
        }
    }

    #[test]
    fn a_signature_is_refused_by_what_is_wrong_with_it() {
        let (ours, theirs) = (signer("EdDSA", "k1"), signer("ES256", "k2"));
        let told = |card: &AgentCard| keys(&ours).verify(card).unwrap_err().to_string();
        assert!(told(&card()).starts_with("signatures: are missing"));
        let mut signed = card();
        theirs.sign(&mut signed).unwrap();
        assert!(told(&signed).contains("signatures[0]: is by a key that is not trusted here (`kid` 'k2'"));
        // A good one beside it is enough.
        ours.sign(&mut signed).unwrap();
        assert_eq!(keys(&ours).verify(&signed), Ok(1));

        let altered = |change: fn(&mut AgentCardSignature)| {
            let mut signed = card();
            ours.sign(&mut signed).unwrap();
            change(&mut signed.signatures[0]);
            told(&signed)
        };
        let header = |fields: Value| URL_SAFE_NO_PAD.encode(fields.to_string());
        assert!(altered(|it| it.signature.insert(0, '!')).contains("is not in base64url"));
        assert!(altered(|it| it.protected = "e".to_owned()).contains("protected header"));
        let critical = header(json!({"alg": "EdDSA", "kid": "k1", "crit": ["b64"], "b64": false}));
        let none = header(json!({"alg": "none", "kid": "k1"}));
        let mut signed = card();
        ours.sign(&mut signed).unwrap();
        signed.signatures[0].protected = critical;
        assert!(told(&signed).contains("critical"));
        signed.signatures[0].protected = none;
        assert!(told(&signed).contains("not trusted here"));

        // A key of that name which is another.
        let twin = signer("EdDSA", "k1");
        let mut signed = card();
        twin.sign(&mut signed).unwrap();
        assert!(told(&signed).contains("does not fit the card"));
    }

    #[test]
    fn key_sets_are_read_as_far_as_they_are_understood() {
        let ours = signer("ES256", "k");
        let mut set = ours.key_set().clone();
        let keys = set["keys"].as_array_mut().unwrap();
        keys.push(json!({"kty": "oct", "k": "c2VjcmV0"}));
        keys.push(json!({"kty": "EC", "crv": "P-256", "use": "enc"}));
        assert_eq!(Keys::parse(&set.to_string()).unwrap().0.len(), 1);
        for wrong in [
            json!([]),
            json!({"keys": []}),
            json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA"}]}),
        ] {
            assert!(Keys::parse(&wrong.to_string()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_policy_decides_what_becomes_of_a_card() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("jwks.json");
        let mut config = Config {
            jwks_file: Some(path.clone()),
            policy: Policy::Require,
        };
        let now = Duration::ZERO;
        let refused = Trust::load(&config, "registry.card_trust", now).unwrap_err();
        assert!(
            refused.starts_with("registry.card_trust.jwks_file: "),
            "{refused}"
        );
        let signer = signer("EdDSA", "k");
        std::fs::write(&path, signer.key_set().to_string()).unwrap();
        let mut signed = card();
        signer.sign(&mut signed).unwrap();
        let require = Trust::load(&config, "", now).unwrap().unwrap();
        assert_eq!(require.check(&signed, now), Ok(None));
        assert!(require.check(&card(), now).is_err());
        config.policy = Policy::Warn;
        let warn = Trust::load(&config, "", now).unwrap().unwrap();
        assert!(warn.check(&card(), now).unwrap().is_some());
        config.policy = Policy::Off;
        assert!(Trust::load(&config, "", now).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn every_changed_field_breaks_a_signature(choice in any::<prop::sample::Index>(), text in "[a-z]{1,9}") {
            let signer = signer("EdDSA", "k");
            let mut signed = card();
            signer.sign(&mut signed).unwrap();
            let served: Value = serde_json::from_str(&Served::new(&signed).unwrap().body).unwrap();
            let mut places = Vec::new();
            let mut unsigned = served.clone();
            unsigned.as_object_mut().unwrap().remove("signatures");
            leaves(&unsigned, "", &mut places);
            let place = choice.get(&places);
            let mut changed = served.clone();
            let leaf = changed.pointer_mut(place).unwrap();
            *leaf = match &*leaf {
                Value::String(was) => json!(format!("{was}{text}")),
                Value::Bool(was) => json!(!was),
                Value::Number(was) => json!(was.as_f64().unwrap() + 1.0),
                other => panic!("{other}"),
            };
            let read = parse(changed.to_string().as_bytes()).unwrap();
            let refused = keys(&signer).verify(&read).unwrap_err();
            prop_assert_eq!(refused.signature, Some(0), "{}", place);
        }
    }
}
