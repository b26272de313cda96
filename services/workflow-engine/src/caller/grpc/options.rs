//! Options of contracts whose value is a message in text: `option (google.api.http) = { get: "/v1/{name}" }`.
//!
//! The library that reads them calls itself for each level, without a bound: a contract of a hundred thousand braces would end the
//! process. Contracts are written by others, and told by their servers. So the levels are counted before it reads them.

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, UninterpretedOption,
};

/// Most levels of messages in each other, as in the encoded form.
pub(super) const MOST_LEVELS: usize = 100;

/// Whether one of the options of a part has more levels. Each kind of part has a type of options of its own.
macro_rules! is_too_deep {
    ($part:expr) => {
        of($part
            .options
            .as_ref()
            .map(|options| &options.uninterpreted_option))
    };
}

/// Whether an option of the file has more levels.
pub(super) fn are_too_deep(file: &FileDescriptorProto) -> bool {
    is_too_deep!(file)
        || file
            .service
            .iter()
            .any(|service| is_too_deep!(service) || service.method.iter().any(|method| is_too_deep!(method)))
        || file.message_type.iter().any(of_message)
        || file.enum_type.iter().any(of_enum)
        || file.extension.iter().any(of_field)
}

fn of_message(message: &DescriptorProto) -> bool {
    is_too_deep!(message)
        || message.field.iter().chain(&message.extension).any(of_field)
        || message.enum_type.iter().any(of_enum)
        || message.oneof_decl.iter().any(|one| is_too_deep!(one))
        || message.extension_range.iter().any(|range| is_too_deep!(range))
        // As deep as the reader of messages or of sources has allowed.
        || message.nested_type.iter().any(of_message)
}

fn of_field(field: &FieldDescriptorProto) -> bool {
    is_too_deep!(field)
}

fn of_enum(of_enum: &EnumDescriptorProto) -> bool {
    is_too_deep!(of_enum) || of_enum.value.iter().any(|value| is_too_deep!(value))
}

fn of(options: Option<&Vec<UninterpretedOption>>) -> bool {
    let texts = options.into_iter().flatten();
    let mut texts = texts.filter_map(|option| option.aggregate_value.as_deref());
    texts.any(|text| levels(text) > MOST_LEVELS)
}

/// How many levels the text has, of messages and lists, up to where it is no text of a message.
fn levels(text: &str) -> usize {
    let (mut level, mut most) = (0_usize, 0);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '{' | '<' | '[' => {
                level += 1;
                most = most.max(level);
            }
            '}' | '>' | ']' => level = level.saturating_sub(1),
            // A remark, up to the end of the line.
            '#' => drop(characters.find(|character| *character == '\n')),
            quote @ ('"' | '\'') => {
                while let Some(character) = characters.next() {
                    match character {
                        '\\' => drop(characters.next()),
                        character if character == quote => break,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_counted_outside_of_texts_and_remarks() {
        for (text, expected) in [
            ("get: \"/v1/{name}\"", 0),
            ("a { b: [ { c < d: 1 > } ] } e { f: '}' g {} }", 4),
            ("# {{{ \" \n a { } # {", 1),
            ("a: '\\'{' b: \"\\\\\" c { }", 1),
            ("} } a {", 1),
        ] {
            assert_eq!(levels(text), expected, "{text}");
        }
    }
}
