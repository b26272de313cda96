//! What A2A's messages look like, taken from the descriptors of the contract, so that there is nothing to keep in step.

use std::collections::HashMap;
use std::sync::LazyLock;

use muster_api::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};

use super::{Checked, Defect, Field, Fields, MAX_DEPTH, NOT_UTF8, TOO_DEEP, TWICE, Value, WRONG_TYPE};

/// The files that A2A's messages are in.
const FILES: [&str; 3] = [
    "a2a/v1/a2a.proto",
    "google/protobuf/struct.proto",
    "google/protobuf/timestamp.proto",
];

/// Highest number of a field; a table of a message's fields has as many places.
const MOST_FIELDS: usize = 64;

static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("our own build encoded it");
    Schemas::of(&set)
});

/// What a message may hold.
#[derive(Debug)]
pub struct Schema {
    /// By number.
    rules: Vec<Option<Rule>>,
}

/// What a field may hold.
#[derive(Debug)]
struct Rule {
    /// As in JSON.
    name: String,
    kind: Kind,
    is_repeated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Varint,
    Fixed64,
    Fixed32,
    Text,
    Bytes,
    /// Position of its schema.
    Message(usize),
}

struct Schemas {
    /// By the name within the package; A2A's messages and the few of protobuf's own have different ones.
    by_name: HashMap<String, usize>,
    all: Vec<Schema>,
}

impl Schemas {
    fn of(set: &FileDescriptorSet) -> Self {
        let mut messages = Vec::new();
        for file in set.file.iter().filter(|file| FILES.contains(&file.name())) {
            for message in &file.message_type {
                gather(&format!(".{}", file.package()), message, &mut messages);
            }
        }
        let full: HashMap<&str, usize> = messages
            .iter()
            .enumerate()
            .map(|(index, (name, _))| (name.as_str(), index))
            .collect();
        let all = messages
            .iter()
            .map(|(_, message)| Schema::of(message, &full))
            .collect();
        let by_name = messages
            .iter()
            .enumerate()
            .map(|(index, (_, message))| (message.name().to_owned(), index))
            .collect();
        Self { by_name, all }
    }
}

/// The message and those that are declared in it, by full name.
fn gather<'s>(scope: &str, message: &'s DescriptorProto, messages: &mut Vec<(String, &'s DescriptorProto)>) {
    let name = format!("{scope}.{}", message.name());
    for nested in &message.nested_type {
        gather(&name, nested, messages);
    }
    messages.push((name, message));
}

impl Schema {
    /// The schema of a message, by its name in `lf.a2a.v1` or `google.protobuf`; an unknown name is that of an empty
    /// message.
    #[must_use]
    pub fn named(message: &str) -> &'static Self {
        static EMPTY: Schema = Schema { rules: Vec::new() };
        let index = SCHEMAS.by_name.get(message);
        index.and_then(|index| SCHEMAS.all.get(*index)).unwrap_or(&EMPTY)
    }

    fn of(message: &DescriptorProto, full: &HashMap<&str, usize>) -> Self {
        let mut rules = Vec::new();
        for field in &message.field {
            let number = usize::try_from(field.number()).unwrap_or(usize::MAX);
            let Some(rule) = Rule::of(field, full).filter(|_| number < MOST_FIELDS) else {
                continue;
            };
            if rules.len() <= number {
                rules.resize_with(number + 1, || None);
            }
            rules[number] = Some(rule);
        }
        Self { rules }
    }

    fn rule(&self, number: u32) -> Option<&Rule> {
        self.rules.get(number as usize)?.as_ref()
    }

    /// Walks through a message that lies this deep in others.
    ///
    /// # Errors
    /// Names the first field that the official decoder would refuse.
    pub fn check(&self, bytes: &[u8], depth: usize) -> Checked<()> {
        let mut fields = Fields::of(bytes);
        while let Some(field) = fields.next(depth)? {
            self.check_field(&field, depth)?;
        }
        Ok(())
    }

    /// Checks one field of a message that lies this deep in others, with all that is in it.
    ///
    /// # Errors
    /// Names the field, or the one in it, that the official decoder would refuse.
    pub fn check_field(&self, field: &Field<'_>, depth: usize) -> Checked<()> {
        let rule = match self.rule(field.number) {
            Some(rule) => rule,
            None if depth >= MAX_DEPTH => return Err(Defect::new(TOO_DEEP)),
            None => return Ok(()),
        };
        let outcome = match (rule.kind, field.value) {
            (Kind::Varint, Value::Varint(_))
            | (Kind::Fixed64, Value::Fixed64)
            | (Kind::Fixed32, Value::Fixed32)
            | (Kind::Bytes, Value::Bytes(_)) => return Ok(()),
            (Kind::Text, Value::Bytes(text)) => match std::str::from_utf8(text) {
                Ok(_) => return Ok(()),
                Err(_) => Err(Defect::new(NOT_UTF8)),
            },
            (Kind::Message(_), Value::Bytes(_)) if depth >= MAX_DEPTH => Err(Defect::new(TOO_DEEP)),
            (Kind::Message(index), Value::Bytes(message)) => SCHEMAS
                .all
                .get(index)
                .map_or(Ok(()), |schema| schema.check(message, depth + 1)),
            _ => Err(Defect::new(WRONG_TYPE)),
        };
        outcome.map_err(|defect| defect.inside(&rule.name))
    }

    /// Reads a message that the router itself looks into: `look` gets each field, and returns whether that was all there
    /// is to check in it. What is not repeated stands there once: of two, the router might route by the one while the
    /// agent reads the other.
    ///
    /// # Errors
    /// Names the first field that is twice there, that `look` refuses, or that the official decoder would.
    pub fn read<'b>(
        &self,
        bytes: &'b [u8],
        depth: usize,
        mut look: impl FnMut(&Field<'b>) -> Checked<bool>,
    ) -> Checked<()> {
        let mut seen = 0_u64;
        let mut fields = Fields::of(bytes);
        while let Some(field) = fields.next(depth)? {
            let Some(rule) = self.rule(field.number) else {
                continue;
            };
            let bit = 1_u64 << field.number;
            if seen & bit != 0 && !rule.is_repeated {
                return Err(Defect::new(TWICE).inside(&rule.name));
            }
            seen |= bit;
            let is_checked = look(&field).map_err(|defect| defect.inside(&rule.name))?;
            if !is_checked {
                self.check_field(&field, depth)?;
            }
        }
        Ok(())
    }
}

impl Rule {
    /// The rule of a field; `None` where it is of a message that is not among those that are known.
    fn of(field: &FieldDescriptorProto, full: &HashMap<&str, usize>) -> Option<Self> {
        let kind = match field.r#type() {
            Type::Double | Type::Fixed64 | Type::Sfixed64 => Kind::Fixed64,
            Type::Float | Type::Fixed32 | Type::Sfixed32 => Kind::Fixed32,
            Type::String => Kind::Text,
            Type::Bytes => Kind::Bytes,
            Type::Message | Type::Group => Kind::Message(*full.get(field.type_name())?),
            Type::Int64
            | Type::Uint64
            | Type::Int32
            | Type::Uint32
            | Type::Sint32
            | Type::Sint64
            | Type::Bool
            | Type::Enum => Kind::Varint,
        };
        Some(Self {
            name: field.json_name().to_owned(),
            kind,
            is_repeated: field.label() == Label::Repeated,
        })
    }
}

#[cfg(test)]
mod tests {
    use muster_api::a2a;

    use super::*;

    #[test]
    fn every_message_that_is_forwarded_is_known_with_its_fields() {
        for name in crate::operation::METHODS
            .iter()
            .flat_map(|method| [method.request, method.answer])
        {
            let is_empty = Schema::named(name).rules.is_empty();
            assert_eq!(is_empty, name == "Empty", "{name}");
        }
        let message = Schema::named("Message");
        let name = |number| message.rule(number).map(|rule| rule.name.as_str());
        assert_eq!(
            (name(1), name(8), name(9)),
            (Some("messageId"), Some("referenceTaskIds"), None)
        );
        assert!(message.rule(5).unwrap().is_repeated);
    }

    /// They could be packed, which this module knows nothing of.
    #[test]
    fn no_number_is_repeated() {
        for schema in &SCHEMAS.all {
            for rule in schema.rules.iter().flatten() {
                let is_number = matches!(rule.kind, Kind::Varint | Kind::Fixed64 | Kind::Fixed32);
                assert!(!(is_number && rule.is_repeated), "{rule:?}");
            }
        }
    }

    #[test]
    fn what_is_wrong_deep_inside_is_named_by_its_path() {
        let mut part = a2a::Part::default().encode_to_vec();
        part.extend([0x0a, 1, 0xff]);
        let mut message = Vec::new();
        prost::encoding::bytes::encode(5, &part, &mut message);
        let mut request = Vec::new();
        prost::encoding::bytes::encode(2, &message, &mut request);
        let defect = Schema::named("SendMessageRequest")
            .check(&request, 0)
            .unwrap_err();
        assert_eq!(
            (defect.field.as_str(), defect.what),
            ("message.parts.text", NOT_UTF8)
        );

        // A number where text is declared.
        let defect = Schema::named("Message").check(&[0x08, 1], 0).unwrap_err();
        assert_eq!((defect.field.as_str(), defect.what), ("messageId", WRONG_TYPE));
    }

    #[test]
    fn data_may_be_as_deep_as_the_official_decoder_takes_it_and_no_deeper() {
        use prost_types::value::Kind as Data;
        let nested = |levels: usize| {
            let mut value = prost_types::Value {
                kind: Some(Data::BoolValue(true)),
            };
            for _ in 0..levels {
                let list = prost_types::ListValue { values: vec![value] };
                value = prost_types::Value {
                    kind: Some(Data::ListValue(list)),
                };
            }
            let content = Some(a2a::part::Content::Data(value));
            a2a::Part {
                content,
                ..a2a::Part::default()
            }
            .encode_to_vec()
        };
        let mut is_refused = false;
        for levels in 0..60 {
            let part = nested(levels);
            let taken = a2a::Part::decode(part.as_slice()).is_ok();
            assert_eq!(Schema::named("Part").check(&part, 0).is_ok(), taken, "{levels}");
            is_refused |= !taken;
        }
        assert!(is_refused);
    }
}
