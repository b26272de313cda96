//! What a caller asked, read once from the message's parts and metadata.

use std::collections::HashMap;

use a2a::{Message, PartContent};
use muster_api::{json::restore_integers, names};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::tasks::record::Errand;
use crate::{Card, Failure, parse};

/// Key under which message or request metadata, or a data part, name the skill.
const SKILL: &str = "skill";

/// A file that came with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name, where the sender gave one.
    pub name: Option<String>,
    /// Its media type, where the sender gave one.
    pub media_type: Option<String>,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// One message to an agent.
#[derive(Debug, Clone)]
pub struct Request {
    /// The skill that the caller asked for, always one of the card's. It comes from the metadata that the router
    /// sets, else from the metadata of the message or the request (`skill`), else from the data part's field
    /// `skill`. A card with one skill means that one where nothing is said.
    pub skill: Option<String>,
    /// Metadata of the request and the message; the message's wins.
    pub metadata: HashMap<String, Value>,
    /// The message as it came.
    pub message: Message,
    /// The attempt-less key of the workflow step that asks: the same on every delivery of that step.
    pub step_key: Option<String>,
    text: String,
    data: Option<Value>,
    files: Vec<File>,
}

impl Request {
    /// The plain text: all text parts that are not files, joined by line breaks.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The first data part, without the field `skill`, which only says whom the data is for.
    #[must_use]
    pub fn data(&self) -> Option<&Value> {
        self.data.as_ref()
    }

    /// The files: raw parts, and text parts with a filename.
    #[must_use]
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// The first data part as a `T`, or `None` where there is no data part. It has to be a JSON object: a list in
    /// its place would be read as the fields in their order, which no caller means. See [`parse`](crate::parse).
    pub fn parse<T: DeserializeOwned>(&self) -> Result<Option<T>, Failure> {
        match &self.data {
            None => Ok(None),
            Some(data @ Value::Object(_)) => parse(data).map(Some),
            Some(_) => Err(Failure::invalid_field(
                "data",
                "is no JSON object; send {…} with named fields",
            )),
        }
    }

    /// Reads a message and what came around it.
    pub(crate) fn read(
        message: Message,
        request_metadata: Option<HashMap<String, Value>>,
        errand: &Errand,
        card: &Card,
    ) -> Result<Self, Failure> {
        let said = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut metadata = request_metadata.unwrap_or_default();
        metadata.extend(message.metadata.clone().unwrap_or_default());

        let Parts {
            text,
            mut data,
            files,
        } = Parts::read(&message)?;
        let in_data = match &mut data {
            Some(Value::Object(fields)) if fields.get(SKILL).is_some_and(Value::is_string) => {
                fields.remove(SKILL)
            }
            _ => None,
        };
        let named = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let skill = said(&errand.skill)
            .or_else(|| named(metadata.get(SKILL)))
            .or_else(|| named(in_data.as_ref()))
            .or_else(|| card.only_skill().map(str::to_owned));
        if let Some(unknown) = skill.as_deref().filter(|id| !card.has_skill(id)) {
            return Err(unknown_skill(unknown, card));
        }
        Ok(Self {
            skill,
            metadata,
            step_key: said(&errand.step_key),
            message,
            text,
            data,
            files,
        })
    }
}

fn unknown_skill(unknown: &str, card: &Card) -> Failure {
    let known: Vec<&str> = card.skill_ids().collect();
    Failure::invalid_field(
        SKILL,
        format!(
            "agent '{}' has no skill '{unknown}', only {}{}",
            card.id,
            known.join(", "),
            names::suggestion(unknown, known.iter().copied())
        ),
    )
}

/// A message's parts, sorted by kind.
struct Parts {
    text: String,
    data: Option<Value>,
    files: Vec<File>,
}

impl Parts {
    fn read(message: &Message) -> Result<Self, Failure> {
        let mut parts = Self {
            text: String::new(),
            data: None,
            files: Vec::new(),
        };
        for (index, part) in message.parts.iter().enumerate() {
            let file = |bytes: Vec<u8>| File {
                name: part.filename.clone(),
                media_type: part.media_type.clone(),
                bytes,
            };
            match &part.content {
                PartContent::Text(text) if part.filename.is_some() => {
                    parts.files.push(file(text.clone().into_bytes()));
                }
                PartContent::Text(text) => {
                    if !parts.text.is_empty() {
                        parts.text.push('\n');
                    }
                    parts.text.push_str(text);
                }
                PartContent::Raw(bytes) => parts.files.push(file(bytes.clone())),
                PartContent::Data(_) if parts.data.is_some() => {
                    return Err(Failure::invalid_field(
                        format!("message.parts[{index}].data"),
                        "a second data part; send one JSON object",
                    ));
                }
                PartContent::Data(data) => {
                    let mut data = data.clone();
                    restore_integers(&mut data);
                    parts.data = Some(data);
                }
                PartContent::Url(_) => {
                    return Err(Failure::invalid_field(
                        format!("message.parts[{index}].url"),
                        "this agent fetches nothing from other hosts; send the content as a raw part",
                    ));
                }
            }
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Skill;
    use a2a::{Part, Role};
    use serde_json::json;

    fn card(skills: &[&str]) -> Card {
        skills
            .iter()
            .fold(Card::new("weather", "W", "d", "1"), |card, id| {
                card.skill(Skill::new(*id, "S", "d"))
            })
    }

    fn read(parts: Vec<Part>, card: &Card) -> Result<Request, Failure> {
        Request::read(Message::new(Role::User, parts), None, &Errand::default(), card)
    }

    #[test]
    fn parts_are_sorted_by_kind() {
        let request = read(
            vec![
                Part::text("compare"),
                Part::data(json!({ "days": 5.0 })),
                Part::raw(vec![1, 2]).with_filename("a.bin"),
                Part::text("x,y").with_filename("a.csv"),
                Part::text("please"),
            ],
            &card(&["a", "b"]),
        )
        .unwrap();
        assert_eq!(request.text(), "compare\nplease");
        assert_eq!(request.data(), Some(&json!({ "days": 5 })));
        let names: Vec<_> = request.files().iter().map(|file| file.name.as_deref()).collect();
        assert_eq!(names, [Some("a.bin"), Some("a.csv")]);
        assert_eq!(request.skill, None);
    }

    #[test]
    fn the_routers_skill_wins_and_the_data_keeps_no_trace_of_it() {
        let errand = Errand {
            skill: "b".to_owned(),
            step_key: "k".to_owned(),
            ..Errand::default()
        };
        let parts = vec![Part::data(json!({ "skill": "a", "city": "Seattle" }))];
        let request =
            Request::read(Message::new(Role::User, parts), None, &errand, &card(&["a", "b"])).unwrap();
        assert_eq!(request.skill.as_deref(), Some("b"));
        assert_eq!(request.step_key.as_deref(), Some("k"));
        assert_eq!(request.data(), Some(&json!({ "city": "Seattle" })));
    }

    #[test]
    fn an_only_skill_is_meant_and_an_unknown_one_is_refused_with_the_nearest() {
        let request = read(vec![Part::text("x")], &card(&["only"])).unwrap();
        assert_eq!(request.skill.as_deref(), Some("only"));
        let failure = read(
            vec![Part::data(json!({ "skill": "forcast" }))],
            &card(&["forecast", "alerts"]),
        )
        .unwrap_err();
        assert_eq!(failure.field(), Some("skill"));
        assert!(
            failure.to_string().contains("did you mean 'forecast'"),
            "{failure}"
        );
    }

    #[test]
    fn input_is_an_object_or_nothing() {
        let parsed = |parts| read(parts, &card(&["a"])).unwrap().parse::<HashMap<String, u8>>();
        assert_eq!(parsed(vec![Part::text("x")]).unwrap(), None);
        let object = parsed(vec![Part::data(json!({ "a": 1.0 }))]).unwrap();
        assert_eq!(object, Some(HashMap::from([("a".to_owned(), 1)])));
        let list = parsed(vec![Part::data(json!([1]))]).unwrap_err();
        assert_eq!(list.field(), Some("data"));
    }

    #[test]
    fn what_would_be_guessed_or_fetched_is_refused_by_its_place() {
        let two = vec![Part::data(json!({})), Part::data(json!({}))];
        assert_eq!(
            read(two, &card(&["a"])).unwrap_err().field(),
            Some("message.parts[1].data")
        );
        let url = vec![Part::url("http://169.254.169.254/")];
        assert_eq!(
            read(url, &card(&["a"])).unwrap_err().field(),
            Some("message.parts[0].url")
        );
    }
}
