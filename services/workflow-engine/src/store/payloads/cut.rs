//! Cutting large values out of JSON, and filling the holes again.
//!
//! What is kept of a text begins with [`MARK`], which no JSON begins with; a head in JSON up to the end of the line; and then the
//! text without what was cut out of it:
//!
//! ```text
//! U+0001 muster payloads 1 {"created":1764…,"span":0,"cut":[[39,1048578,"9f86…"]]}
//! {"index":0,"time":"…","type":"run.started","format":1,"input":}
//! ```
//!
//! A hole has its place in the text that is left, the length of the value that fills it, and the digest of its payload. A text
//! that has no large value is kept as it is.
//!
//! The smallest values that are too long are cut out first, so that a large value is the same payload wherever it is found. What
//! then is still too long around the holes is cut out too: such a payload has holes of its own, and the same form.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer as _, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Digest, Payload, Room};

/// What a text with holes begins with.
pub(super) const MARK: &str = "\u{1}muster payloads 1 ";

/// Values that are nested deeper are not looked into: each level costs one look at the text.
const DEEPEST: usize = 24;

/// The first line of a text with holes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// Where the payloads are; none in a payload, whose own are where it is.
    #[serde(flatten)]
    place: Option<Place>,
    cut: Vec<Hole>,
}

/// Where the payloads of a text are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Place {
    /// See [`Room`].
    pub(super) created: i64,
    /// See [`Room`].
    pub(super) span: u64,
    /// Whether they are outside of the store.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) outside: bool,
}

impl Place {
    pub(super) fn of(room: &Room, outside: bool) -> Self {
        Self {
            created: room.created_micros,
            span: room.span,
            outside,
        }
    }
}

/// A hole: its place in what is left, the length of what fills it, and the digest of its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hole(usize, pub(super) usize, pub(super) Digest);

/// What is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// The text itself.
    Text(String),
    /// This payload, which is not there; or is another one.
    Payload(Digest),
}

/// How it cuts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scissors {
    /// Longest value that stays, in bytes.
    pub(super) threshold: usize,
    pub(super) place: Place,
}

/// What is looked at as a whole, and is not cut out as a whole.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// An entry of a journal, with its fields.
    Entry,
    /// A state: lines of JSON, with their fields, one of which is the table of values.
    State,
}

impl Kind {
    fn levels(self) -> usize {
        match self {
            Self::Entry => 1,
            Self::State => 2,
        }
    }
}

/// A value that is cut out of a text.
struct Found {
    range: Range<usize>,
    digest: Digest,
}

impl Scissors {
    /// Whether the bytes would not be kept as they are.
    pub(super) fn concern(&self, bytes: &[u8]) -> bool {
        bytes.len() > self.threshold || bytes.starts_with(MARK.as_bytes())
    }

    /// Whether the value would not be kept as it is.
    pub(super) fn concern_value(&self, value: &Value) -> bool {
        is_marked(value) || is_longer(value, self.threshold)
    }

    /// What is kept of the bytes, if not all of them.
    pub(super) fn cut(&self, bytes: &[u8], kind: Kind, payloads: &mut Payloads) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(bytes).ok().filter(|_| self.concern(bytes))?;
        let (mut found, mut start) = (Vec::new(), 0);
        for line in text.split('\n') {
            let inside = self.find(line, kind.levels(), 0, payloads);
            found.extend(inside.into_iter().map(|found| found.moved(start)));
            start += line.len() + 1;
        }
        if found.is_empty() && !text.starts_with(MARK) {
            return None;
        }
        Some(left(Some(self.place), text, &found).into_bytes())
    }

    /// What is kept of the value, if not all of it: a text in its place.
    pub(super) fn cut_value(&self, value: &Value, payloads: &mut Payloads) -> Option<Value> {
        if !self.concern_value(value) {
            return None;
        }
        let text = value.to_string();
        let found = self.find(&text, 0, 0, payloads);
        Some(Value::String(left(Some(self.place), &text, &found)))
    }

    /// What is cut out of a JSON text, of which so many levels are not cut out as a whole.
    fn find(&self, text: &str, levels: usize, depth: usize, payloads: &mut Payloads) -> Vec<Found> {
        if text.len() <= self.threshold {
            return Vec::new();
        }
        let mut found = Vec::new();
        if depth < DEEPEST {
            for part in large_parts(text, self.threshold) {
                let start = part.as_ptr().addr() - text.as_ptr().addr();
                let inside = self.find(part, levels.saturating_sub(1), depth + 1, payloads);
                found.extend(inside.into_iter().map(|found| found.moved(start)));
            }
        }
        let gone: usize = found.iter().map(|found| found.range.len()).sum();
        if levels > 0 || text.len() - gone <= self.threshold {
            return found;
        }
        let kept = if found.is_empty() {
            text.to_owned()
        } else {
            left(None, text, &found)
        };
        vec![Found {
            range: 0..text.len(),
            digest: payloads.add(kept),
        }]
    }
}

impl Found {
    fn moved(self, by: usize) -> Self {
        Self {
            range: self.range.start + by..self.range.end + by,
            ..self
        }
    }
}

/// What was cut out, each once.
#[derive(Debug, Default)]
pub(super) struct Payloads(BTreeMap<Digest, String>);

impl Payloads {
    fn add(&mut self, text: String) -> Digest {
        let digest = Digest::of(&text);
        self.0.entry(digest.clone()).or_insert(text);
        digest
    }

    pub(super) fn into_list(self) -> Vec<Payload> {
        let all = self.0.into_iter();
        all.map(|(digest, text)| Payload { digest, text }).collect()
    }
}

/// The text without what was found, and its head.
fn left(place: Option<Place>, text: &str, found: &[Found]) -> String {
    let (mut rest, mut cut, mut end) = (String::new(), Vec::with_capacity(found.len()), 0);
    for Found { range, digest } in found {
        rest.push_str(text.get(end..range.start).unwrap_or_default());
        cut.push(Hole(rest.len(), range.len(), digest.clone()));
        end = range.end;
    }
    rest.push_str(text.get(end..).unwrap_or_default());
    let head = serde_json::to_string(&Head { place, cut }).unwrap_or_default();
    format!("{MARK}{head}\n{rest}")
}

/// The members or elements of a JSON text that are longer than the threshold; none of what is neither an object nor an array.
fn large_parts(text: &str, threshold: usize) -> Vec<&str> {
    struct Parts(usize);

    impl<'de> Visitor<'de> for Parts {
        type Value = Vec<&'de str>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object or an array")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut parts = Vec::new();
            while let Some((_, part)) = map.next_entry::<IgnoredAny, &RawValue>()? {
                parts.extend(Some(part.get()).filter(|part| part.len() > self.0));
            }
            Ok(parts)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut parts = Vec::new();
            while let Some(part) = list.next_element::<&RawValue>()? {
                parts.extend(Some(part.get()).filter(|part| part.len() > self.0));
            }
            Ok(parts)
        }
    }

    if !text.starts_with(['{', '[']) {
        return Vec::new();
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    // What is no JSON has no parts.
    let parts = reader.deserialize_any(Parts(threshold)).unwrap_or_default();
    if reader.end().is_ok() { parts } else { Vec::new() }
}

fn is_marked(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.starts_with(MARK))
}

/// Whether the JSON of a value is longer than this; stops to write it once it is.
fn is_longer(value: &Value, most: usize) -> bool {
    struct Bounded(usize);

    impl io::Write for Bounded {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(io::ErrorKind::FileTooLarge)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    serde_json::to_writer(Bounded(most), value).is_err()
}

/// What is kept of a text that has holes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut<'t> {
    pub(super) place: Option<Place>,
    pub(super) holes: Vec<Hole>,
    rest: &'t str,
}

impl<'t> Cut<'t> {
    /// Reads what is kept; nothing where it is the whole.
    pub(super) fn read(kept: &'t str) -> Result<Option<Self>, Unfit> {
        let Some(cut) = kept.strip_prefix(MARK) else {
            return Ok(None);
        };
        let unfit = |what: String| Unfit::Text(format!("where its large values are cannot be read: {what}"));
        let (head, rest) = cut.split_once('\n').unwrap_or((cut, ""));
        let Head { place, cut: holes } =
            serde_json::from_str(head).map_err(|error| unfit(error.to_string()))?;
        let mut last = 0;
        for Hole(at, ..) in &holes {
            if *at < last || !rest.is_char_boundary(*at) {
                return Err(unfit(format!("there is no place {at}")));
            }
            last = *at;
        }
        Ok(Some(Self { place, holes, rest }))
    }

    /// The length of the whole.
    pub(super) fn whole_length(&self) -> usize {
        let filled = self.holes.iter().map(|Hole(_, length, _)| *length);
        filled.fold(self.rest.len(), usize::saturating_add)
    }

    /// The whole, with these payloads in its holes.
    pub(super) fn filled<'p>(&self, payload: &impl Fn(&Digest) -> Option<&'p str>) -> Result<String, Unfit> {
        let mut whole = String::new();
        let mut end = 0;
        for Hole(at, length, digest) in &self.holes {
            whole.push_str(self.rest.get(end..*at).unwrap_or_default());
            let unfit = || Unfit::Payload(digest.clone());
            let part = filled(payload(digest).ok_or_else(unfit)?, payload)?;
            if part.len() != *length {
                return Err(unfit());
            }
            whole.push_str(&part);
            end = *at;
        }
        whole.push_str(self.rest.get(end..).unwrap_or_default());
        Ok(whole)
    }
}

/// The whole of what is kept.
pub(super) fn filled<'k, 'p>(
    kept: &'k str,
    payload: &impl Fn(&Digest) -> Option<&'p str>,
) -> Result<Cow<'k, str>, Unfit> {
    match Cut::read(kept)? {
        None => Ok(Cow::Borrowed(kept)),
        Some(cut) => cut.filled(payload).map(Cow::Owned),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const PLACE: Place = Place {
        created: 7,
        span: 0,
        outside: false,
    };

    fn scissors(threshold: usize) -> Scissors {
        Scissors {
            threshold,
            place: PLACE,
        }
    }

    /// What is kept of a text, and the payloads by digest.
    fn cut(text: &str, kind: Kind, threshold: usize) -> (String, BTreeMap<Digest, String>) {
        let mut payloads = Payloads::default();
        let kept = scissors(threshold).cut(text.as_bytes(), kind, &mut payloads);
        let kept = kept.map_or_else(|| text.to_owned(), |kept| String::from_utf8(kept).unwrap());
        (kept, payloads.0)
    }

    fn whole(kept: &str, payloads: &BTreeMap<Digest, String>) -> Result<String, Unfit> {
        let payload = |digest: &Digest| payloads.get(digest).map(String::as_str);
        filled(kept, &payload).map(Cow::into_owned)
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(|number| json!(number)),
            "\\PC{0,40}".prop_map(Value::from),
            Just(Value::from(format!("{MARK}{{}}\n"))),
        ];
        leaf.prop_recursive(4, 64, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map("\\PC{0,6}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_put_away_is_brought_back_as_it_was(
            value in values(), threshold in 1_usize..200, lines in 1_usize..3,
        ) {
            let text = vec![value.to_string(); lines].join("\n");
            for kind in [Kind::Entry, Kind::State] {
                let (kept, payloads) = cut(&text, kind, threshold);
                prop_assert_eq!(&whole(&kept, &payloads).unwrap(), &text);
                if let Some(cut) = Cut::read(&kept).unwrap() {
                    prop_assert_eq!(cut.whole_length(), text.len());
                    prop_assert_eq!(cut.place, Some(PLACE));
                    for digest in payloads.keys() {
                        let mut fewer = payloads.clone();
                        fewer.remove(digest);
                        prop_assert!(matches!(whole(&kept, &fewer), Err(Unfit::Payload(_))));
                    }
                }
            }
            let mut payloads = Payloads::default();
            if let Some(kept) = scissors(threshold).cut_value(&value, &mut payloads) {
                let kept = kept.as_str().unwrap();
                let text = whole(kept, &payloads.0).unwrap();
                prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
                let left = Cut::read(kept).unwrap().unwrap();
                prop_assert!(left.rest.len() <= threshold, "{}", left.rest.len());
            } else {
                prop_assert!(value.to_string().len() <= threshold);
                prop_assert!(!is_marked(&value));
            }
        }

        #[test]
        fn bytes_that_are_no_json_stay_as_they_are(bytes: Vec<u8>, threshold in 1_usize..64) {
            let mut payloads = Payloads::default();
            let kept = scissors(threshold).cut(&bytes, Kind::Entry, &mut payloads);
            let kept = kept.unwrap_or_else(|| bytes.clone());
            if let Ok(text) = std::str::from_utf8(&kept) {
                prop_assert_eq!(whole(text, &payloads.0).unwrap().into_bytes(), bytes);
            }
        }

        #[test]
        fn what_is_altered_is_an_error_or_another_text_and_no_panic(at: prop::sample::Index, to: char) {
            let text = json!({"input": "x".repeat(100), "other": ["y".repeat(100)]}).to_string();
            let (kept, payloads) = cut(&text, Kind::Entry, 20);
            let mut letters: Vec<char> = kept.chars().collect();
            let at = at.index(letters.len());
            letters[at] = to;
            let altered: String = letters.into_iter().collect();
            if let Ok(read) = whole(&altered, &payloads) {
                let place = Cut::read(&altered).unwrap().map(|cut| cut.place);
                prop_assert!(altered == kept || read != text || place != Some(Some(PLACE)));
            }
        }
    }

    #[test]
    fn the_same_value_is_the_same_payload_wherever_it_is() {
        let large = json!({"text": "x".repeat(300)});
        let entry = json!({"index": 1, "input": large, "more": {"a": {"b": [large]}}}).to_string();
        let (kept, payloads) = cut(&entry, Kind::Entry, 100);
        assert_eq!(payloads.len(), 1);
        assert!(kept.len() < 400, "{kept}");
        let state = format!("{{\"values\":[1,{large},2]}}\n{{\"n\":1}}");
        assert_eq!(cut(&state, Kind::State, 100).1, payloads);
        assert_eq!(cut(&entry, Kind::Entry, 10_000), (entry.clone(), BTreeMap::new()));
    }

    #[test]
    fn what_is_too_long_around_large_values_is_put_away_too() {
        let small: Vec<Value> = (0..50).map(|number| json!({"small": number})).collect();
        let list = [vec![json!("x".repeat(500))], small].concat();
        let text = json!({"input": list}).to_string();
        let (kept, payloads) = cut(&text, Kind::Entry, 200);
        assert_eq!(payloads.len(), 2, "the text, and the list with a hole");
        let longer = [list, vec![json!("one more")]].concat();
        let again = cut(&json!({"input": longer}).to_string(), Kind::Entry, 200).1;
        let shared = again.keys().filter(|digest| payloads.contains_key(digest));
        assert_eq!(shared.count(), 1);
        assert_eq!(whole(&kept, &payloads).unwrap(), text);
    }

    #[test]
    fn deep_values_are_put_away_whole() {
        let deep = (0..100).fold(json!("x".repeat(300)), |value, _| json!([value]));
        let text = json!({ "input": deep }).to_string();
        let (kept, payloads) = cut(&text, Kind::Entry, 100);
        assert_eq!(payloads.len(), 1);
        assert_eq!(whole(&kept, &payloads).unwrap(), text);
    }

    /// The form in stores: it is read for as long as there are stores with it.
    #[test]
    fn the_form_is_the_one_that_was_always_written() {
        let digest = "5c9e90246578791578f2a50b2b98c9fc96f4dd032d797e88b4c3a776bfc3664a";
        let text = format!("{{\"index\":0,\"input\":\"{}\"}}", "x".repeat(30));
        let (kept, payloads) = cut(&text, Kind::Entry, 20);
        let digest_now = payloads.keys().next().unwrap().as_str();
        let expected = format!(
            "\u{1}muster payloads 1 {{\"created\":7,\"span\":0,\"cut\":[[19,32,\"{digest_now}\"]]}}\n{{\"index\":0,\"input\":}}"
        );
        assert_eq!(kept, expected);
        assert_eq!(digest_now, digest);
    }
}
