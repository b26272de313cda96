//! From text to the tree, within bounds.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use super::surrogates::Rewritten;
use super::{Content, Entry, Node, pointer_to, scalar, surrogates};
use crate::problem::{Place, Problems, quoted};

/// Largest document, in bytes.
pub(crate) const MOST_BYTES: usize = 1024 * 1024;
/// Deepest nesting of lists and objects.
pub(crate) const DEEPEST: usize = 64;
/// Most values, with what aliases expand to.
pub(crate) const MOST_NODES: usize = 50_000;
/// Most bytes of text, with what aliases expand to.
const MOST_TEXT: usize = 4 * MOST_BYTES;

const START: Place = Place { line: 1, column: 1 };

/// Reads the one document in `text`. Says everything that is wrong with it to `problems`; `None` if there is no
/// tree to go on with. `needs` is what a text without anything in it is told.
pub(crate) fn read(text: &str, needs: &str, problems: &mut Problems) -> Option<Node> {
    if text.len() > MOST_BYTES {
        let message = format!(
            "the document has {} bytes; at most {MOST_BYTES} are allowed",
            text.len()
        );
        problems.error(START, "", message);
        return None;
    }
    let rewritten = surrogates::rewrite(text.strip_prefix('\u{feff}').unwrap_or(text));
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(&rewritten.text);
    while let Some(event) = parser.next_event() {
        let stopped = match event {
            Ok((event, span)) => builder.on_event(event, place_of(span.start, &rewritten), problems),
            Err(error) => Err(Stop::at(
                place_of(*error.marker(), &rewritten),
                explained(error.info()),
            )),
        };
        if let Err(stop) = stopped {
            problems.error(stop.place, &builder.pointer(), stop.message);
            return None;
        }
    }
    if builder.root.is_none() {
        problems.error(START, "", format!("the document is empty; {needs}"));
    }
    builder.root
}

fn place_of(marker: Marker, rewritten: &Rewritten<'_>) -> Place {
    let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    rewritten.original(Place {
        line: narrow(marker.line()).max(1),
        column: narrow(marker.col()).saturating_add(1),
    })
}

/// The parser's own message; it looks ahead, and may stop at its own limit of nesting before ours is reached.
fn explained(message: &str) -> String {
    if message.contains("recursion limit") {
        too_deep()
    } else {
        format!("not valid YAML: {message}")
    }
}

fn too_deep() -> String {
    format!("nested deeper than {DEEPEST} levels")
}

/// Why reading cannot go on.
struct Stop {
    place: Place,
    message: String,
}

impl Stop {
    fn at(place: Place, message: impl Into<String>) -> Self {
        Self {
            place,
            message: message.into(),
        }
    }
}

/// What a value costs, so that an alias is paid before it is copied.
#[derive(Clone, Copy, Default)]
struct Cost {
    nodes: usize,
    text: usize,
    /// Levels of lists and objects.
    height: usize,
}

/// A list or object that is still being read.
struct Open {
    node: Node,
    anchor: usize,
    cost: Cost,
    /// In an object: the key that waits for its value.
    key: Option<(String, Place)>,
}

/// The tree while it grows.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, Cost)>,
    total: Cost,
    documents: usize,
    root: Option<Node>,
}

impl Builder {
    fn on_event(&mut self, event: Event<'_>, place: Place, problems: &mut Problems) -> Result<(), Stop> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => self.start_document(place),
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), "seq", place)?;
                self.start(Content::Array(Vec::new()), anchor, place)
            }
            Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.as_deref(), "map", place)?;
                self.start(Content::Object(Vec::new()), anchor, place)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(place, problems),
            Event::Scalar(text, style, anchor, tag) => {
                let content = scalar_content(&text, style, tag.as_deref(), place)?;
                let bytes = text.len();
                let cost = Cost {
                    nodes: 1,
                    text: bytes,
                    height: 0,
                };
                self.pay(cost, place)?;
                self.complete(Node { place, content }, anchor, cost)
            }
            Event::Alias(anchor) => self.alias(anchor, place),
        }
    }

    fn start_document(&mut self, place: Place) -> Result<(), Stop> {
        self.documents += 1;
        if self.documents > 1 {
            return Err(Stop::at(
                place,
                "a second document begins here; a file holds one workflow",
            ));
        }
        Ok(())
    }

    fn start(&mut self, content: Content, anchor: usize, place: Place) -> Result<(), Stop> {
        if self.waits_for_key() {
            return Err(Stop::at(place, "a key must be text, not a list or an object"));
        }
        if self.open.len() >= DEEPEST {
            return Err(Stop::at(place, too_deep()));
        }
        let cost = Cost {
            nodes: 1,
            text: 0,
            height: 1,
        };
        self.pay(cost, place)?;
        self.open.push(Open {
            node: Node { place, content },
            anchor,
            cost,
            key: None,
        });
        Ok(())
    }

    fn end(&mut self, place: Place, problems: &mut Problems) -> Result<(), Stop> {
        let Some(Open {
            mut node,
            anchor,
            cost,
            ..
        }) = self.open.pop()
        else {
            return Err(Stop::at(
                place,
                "not valid YAML: a list or object ends that never began",
            ));
        };
        if let Content::Object(entries) = &mut node.content {
            refuse_duplicates(entries, || self.pointer(), problems);
        }
        self.complete(node, anchor, cost)
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Result<(), Stop> {
        // An anchor is known once its value is complete, so a value cannot contain itself.
        let Some((node, cost)) = self.anchors.get(&anchor) else {
            return Err(Stop::at(
                place,
                "this alias names an anchor that is not complete before it",
            ));
        };
        let cost = *cost;
        if self.open.len() + cost.height > DEEPEST {
            return Err(Stop::at(
                place,
                format!("this alias nests deeper than {DEEPEST} levels"),
            ));
        }
        if self.would_exceed(cost) {
            return Err(Stop::at(
                place,
                "the aliases of this document expand to too much; write less of it as aliases",
            ));
        }
        let node = node.clone();
        self.pay(cost, place)?;
        self.complete(node, 0, cost)
    }

    fn would_exceed(&self, cost: Cost) -> bool {
        self.total.nodes + cost.nodes > MOST_NODES || self.total.text + cost.text > MOST_TEXT
    }

    fn pay(&mut self, cost: Cost, place: Place) -> Result<(), Stop> {
        if self.would_exceed(cost) {
            return Err(Stop::at(
                place,
                format!("the document holds more than {MOST_NODES} values"),
            ));
        }
        self.total.nodes += cost.nodes;
        self.total.text += cost.text;
        Ok(())
    }

    fn waits_for_key(&self) -> bool {
        self.open
            .last()
            .is_some_and(|open| matches!(open.node.content, Content::Object(_)) && open.key.is_none())
    }

    /// A value is complete: it goes into what is open around it, as a key or as a value.
    fn complete(&mut self, node: Node, anchor: usize, cost: Cost) -> Result<(), Stop> {
        if anchor != 0 {
            // The copy that is kept for aliases costs as much as the value.
            self.pay(cost, node.place)?;
            self.anchors.insert(anchor, (node.clone(), cost));
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        open.cost.nodes += cost.nodes;
        open.cost.text += cost.text;
        open.cost.height = open.cost.height.max(cost.height + 1);
        match &mut open.node.content {
            Content::Array(items) => items.push(node),
            Content::Object(entries) => match open.key.take() {
                Some((key, key_place)) => entries.push(Entry {
                    key,
                    key_place,
                    value: node,
                }),
                None => open.key = Some(key_of(node)?),
            },
            Content::Null | Content::Bool(_) | Content::Number(_) | Content::Text(_) => {}
        }
        Ok(())
    }

    /// JSON pointer of what is being read.
    fn pointer(&self) -> String {
        self.open.iter().fold(String::new(), |pointer, open| {
            match (&open.node.content, &open.key) {
                (Content::Array(items), _) => pointer_to(&pointer, &items.len().to_string()),
                (_, Some((key, _))) => pointer_to(&pointer, key),
                _ => pointer,
            }
        })
    }
}

/// Keeps the first of the fields that have the same name, and reports the others.
fn refuse_duplicates(entries: &mut Vec<Entry>, pointer: impl Fn() -> String, problems: &mut Problems) {
    let mut lines: HashMap<String, u32> = HashMap::with_capacity(entries.len());
    entries.retain(|entry| {
        let earlier = lines.get(&entry.key).copied();
        if let Some(line) = earlier {
            let message = format!("the field {} is already there at line {line}", quoted(&entry.key));
            problems.error(entry.key_place, &pointer_to(&pointer(), &entry.key), message);
        } else {
            lines.insert(entry.key.clone(), entry.key_place.line);
        }
        earlier.is_none()
    });
}

fn key_of(node: Node) -> Result<(String, Place), Stop> {
    let place = node.place;
    match node.content {
        Content::Text(key) if key == "<<" => Err(Stop::at(
            place,
            "merge keys ('<<') are not part of YAML 1.2; write the fields out or use an alias",
        )),
        Content::Text(key) => Ok((key, place)),
        _ => Err(Stop::at(
            place,
            format!("a key must be text, found {}; put it in quotes", node.kind()),
        )),
    }
}

fn scalar_content(text: &str, style: ScalarStyle, tag: Option<&Tag>, place: Place) -> Result<Content, Stop> {
    if tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str") {
        return Ok(Content::Text(text.to_owned()));
    }
    refuse_tag(tag, "str", place)?;
    if style == ScalarStyle::Plain {
        scalar::resolve(text).map_err(|message| Stop::at(place, message))
    } else {
        Ok(Content::Text(text.to_owned()))
    }
}

fn refuse_tag(tag: Option<&Tag>, harmless: &str, place: Place) -> Result<(), Stop> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == harmless) => {
            let name = quoted(&format!("{}{}", tag.handle, tag.suffix));
            Err(Stop::at(
                place,
                format!("the tag {name} is not supported; leave it away"),
            ))
        }
        _ => Ok(()),
    }
}
