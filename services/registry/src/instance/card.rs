//! An agent's card, and what a search needs of it, read once.
//!
//! Cards are by far the largest part of an instance, and all instances of one version of an agent bring the same. They are
//! compared by content so that the registry keeps one of each.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;

use muster_api::a2a::{AgentCard, AgentSkill};
use muster_api::extension;
use prost::Message as _;
use prost_types::value::Kind;

/// See the module. Equal when the messages are.
#[derive(Debug, Clone)]
pub struct Card {
    message: AgentCard,
    encoded_len: usize,
    /// Made when it is first asked for.
    encoded: OnceLock<Box<[u8]>>,
    skills: BTreeSet<String>,
    tags: BTreeSet<String>,
    cost: Option<f64>,
}

impl Card {
    /// Reads a card; what it says of cost counts only where it is a finite number that is not negative.
    #[must_use]
    pub fn new(message: AgentCard) -> Self {
        let tags = message.skills.iter().flat_map(|skill| &skill.tags);
        Self {
            encoded_len: message.encoded_len(),
            encoded: OnceLock::new(),
            skills: message.skills.iter().map(|skill| skill.id.clone()).collect(),
            tags: tags.map(|tag| folded(tag)).collect(),
            cost: stated_cost(&message)
                .and_then(|cost| cost.ok())
                .filter(|cost| is_cost(*cost)),
            message,
        }
    }

    /// The card as it came.
    #[must_use]
    pub const fn message(&self) -> &AgentCard {
        &self.message
    }

    /// Its length in bytes as it travels.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        self.encoded_len
    }

    /// The card as it travels. Cards are few and shared by many instances, so each is encoded once.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        self.encoded
            .get_or_init(|| self.message.encode_to_vec().into_boxed_slice())
    }

    /// The ids of its skills.
    #[must_use]
    pub const fn skills(&self) -> &BTreeSet<String> {
        &self.skills
    }

    /// The tags of all its skills, in lower case.
    #[must_use]
    pub const fn tags(&self) -> &BTreeSet<String> {
        &self.tags
    }

    /// What a call costs, in the unit that the fleet has agreed on; `None` where the agent does not say.
    #[must_use]
    pub const fn cost(&self) -> Option<f64> {
        self.cost
    }

    /// The words of its name and description, and of its skills' ids, names and descriptions, in lower case. Made anew
    /// each time: they are needed when a version comes and when its last instance goes.
    #[must_use]
    pub fn words(&self) -> BTreeSet<String> {
        let of_skill = |skill: &AgentSkill| {
            [&skill.id, &skill.name, &skill.description]
                .into_iter()
                .flat_map(|text| words(text))
                .collect::<Vec<_>>()
        };
        let texts = [&self.message.name, &self.message.description];
        let of_agent = texts.into_iter().flat_map(|text| words(text));
        of_agent
            .chain(self.message.skills.iter().flat_map(of_skill))
            .collect()
    }
}

impl PartialEq for Card {
    fn eq(&self, other: &Self) -> bool {
        self.encoded_len == other.encoded_len && self.message == other.message
    }
}

impl Eq for Card {}

/// Not of the encoded bytes: the order of a map's entries in them is chance.
impl Hash for Card {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.message.name.hash(state);
        self.message.version.hash(state);
        self.message.description.hash(state);
        self.encoded_len.hash(state);
        self.skills.hash(state);
    }
}

/// A tag as it is compared.
#[must_use]
pub fn folded(tag: &str) -> String {
    tag.trim().to_lowercase()
}

/// The words of a text: runs of letters and digits, in lower case.
pub fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

/// Whether a number can be what a call costs.
#[must_use]
pub fn is_cost(cost: f64) -> bool {
    cost.is_finite() && cost >= 0.0
}

/// The cost that the card's routing extension states, where it states one: a number, or what is not one.
pub fn stated_cost(card: &AgentCard) -> Option<Result<f64, ()>> {
    let capabilities = card.capabilities.as_ref()?;
    let mut extensions = capabilities.extensions.iter();
    let routing = extensions.find(|extension| extension.uri == extension::ROUTING)?;
    let value = routing.params.as_ref()?.fields.get(extension::COST)?;
    match value.kind {
        Some(Kind::NumberValue(cost)) => Some(Ok(cost)),
        Some(Kind::NullValue(_)) | None => None,
        Some(_) => Some(Err(())),
    }
}

#[cfg(test)]
impl Card {
    /// A card for tests, with the skill `s`, whose agent costs so much.
    pub(crate) fn costing(cost: f64) -> AgentCard {
        tests::costing(Kind::NumberValue(cost))
    }
}

#[cfg(test)]
mod tests {
    use prost_types::{Struct, Value};

    use super::*;
    use muster_api::a2a::{AgentCapabilities, AgentExtension};

    pub(super) fn costing(kind: Kind) -> AgentCard {
        let fields = [(extension::COST.to_owned(), Value { kind: Some(kind) })];
        AgentCard {
            capabilities: Some(AgentCapabilities {
                extensions: vec![AgentExtension {
                    uri: extension::ROUTING.to_owned(),
                    params: Some(Struct {
                        fields: fields.into(),
                    }),
                    ..AgentExtension::default()
                }],
                ..AgentCapabilities::default()
            }),
            skills: vec![AgentSkill {
                id: "s".to_owned(),
                ..AgentSkill::default()
            }],
            ..AgentCard::default()
        }
    }

    #[test]
    fn words_and_tags_are_found_whatever_their_case() {
        let card = Card::new(AgentCard {
            name: "Weather Station".to_owned(),
            description: "Tells the WEATHER, hourly.".to_owned(),
            skills: vec![AgentSkill {
                id: "short_forecast".to_owned(),
                description: "Übermorgen".to_owned(),
                tags: vec!["Meteo ".to_owned()],
                ..AgentSkill::default()
            }],
            ..AgentCard::default()
        });
        let words = card.words();
        for word in ["weather", "station", "hourly", "short", "forecast", "übermorgen"] {
            assert!(words.contains(word), "{word} in {words:?}");
        }
        assert!(card.tags().contains("meteo"));
    }

    #[test]
    fn a_cost_is_a_finite_number_that_is_not_negative() {
        assert_eq!(Card::new(costing(Kind::NumberValue(0.25))).cost(), Some(0.25));
        for bad in [
            Kind::NumberValue(-1.0),
            Kind::NumberValue(f64::INFINITY),
            Kind::StringValue("dear".to_owned()),
        ] {
            assert_eq!(Card::new(costing(bad)).cost(), None);
        }
        assert_eq!(Card::new(AgentCard::default()).cost(), None);
    }

    #[test]
    fn equal_cards_hash_equally() {
        let hash = |card: &Card| {
            let mut hasher = std::collections::hash_map::DefaultHasher::new();
            card.hash(&mut hasher);
            hasher.finish()
        };
        let (one, other) = (
            Card::new(costing(Kind::NumberValue(1.0))),
            Card::new(costing(Kind::NumberValue(1.0))),
        );
        assert_eq!(one, other);
        assert_eq!(hash(&one), hash(&other));
        assert_ne!(one, Card::new(costing(Kind::NumberValue(2.0))));
    }
}
