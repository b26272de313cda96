//! Markdown, split into passages by heading.
//!
//! A passage is what stands under one heading, without what stands under the headings below it, and is quoted as it
//! was written. One longer than [`MAX_PASSAGE_BYTES`] is split at a block's boundary, so that an answer stays short
//! enough to read. Steps are the items of the first numbered list of a passage; a passage with steps is a known
//! issue that can be resolved.

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// Longest passage, in bytes of Markdown, unless a single block is longer.
pub const MAX_PASSAGE_BYTES: usize = 1_500;

/// A piece of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// The document's name, such as `routing.md`.
    pub file: String,
    /// The headings above it, outermost first.
    pub headings: Vec<String>,
    /// As it was written.
    pub markdown: String,
    /// Its words, without markup.
    pub text: String,
    /// The items of its first numbered list.
    pub steps: Vec<String>,
}

impl Passage {
    /// The headings in one line.
    #[must_use]
    pub fn heading(&self) -> String {
        self.headings.join(" > ")
    }

    /// The innermost heading.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.headings.last().map_or(&self.file, String::as_str)
    }
}

/// Splits a document.
#[must_use]
pub fn split(file: &str, markdown: &str) -> Vec<Passage> {
    let mut splitter = Splitter {
        file,
        markdown,
        headings: Vec::new(),
        blocks: Vec::new(),
        passages: Vec::new(),
    };
    let mut block = Block::default();
    let mut heading: Option<(HeadingLevel, String)> = None;
    let mut depth = 0_usize;
    for (event, range) in Parser::new_ext(markdown, Options::ENABLE_TABLES).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { level, .. }) => heading = Some((level, String::new())),
            Event::End(TagEnd::Heading(_)) => {
                if let Some((level, text)) = heading.take() {
                    splitter.under(level, text);
                }
            }
            Event::Start(tag) => {
                if depth == 0 {
                    block = Block {
                        range: range.clone(),
                        ..Block::default()
                    };
                }
                block.start(&tag);
                depth += 1;
            }
            Event::End(tag) => {
                depth = depth.saturating_sub(1);
                block.end(tag);
                if depth == 0 {
                    splitter.blocks.push(std::mem::take(&mut block));
                }
            }
            Event::Text(text) | Event::Code(text) => match &mut heading {
                Some((_, title)) => title.push_str(&text),
                None => block.say(&text),
            },
            Event::SoftBreak | Event::HardBreak => block.say(" "),
            _ => {}
        }
    }
    splitter.flush();
    splitter.passages
}

/// A paragraph, list, table or code block.
#[derive(Debug, Default)]
struct Block {
    range: std::ops::Range<usize>,
    text: String,
    steps: Vec<String>,
    /// Nesting of lists, and whether the outermost is numbered.
    lists: usize,
    numbered: bool,
}

impl Block {
    fn start(&mut self, tag: &Tag<'_>) {
        match tag {
            Tag::List(first) => {
                if self.lists == 0 {
                    self.numbered = first.is_some();
                }
                self.lists += 1;
            }
            Tag::Item if self.lists == 1 && self.numbered => self.steps.push(String::new()),
            Tag::Emphasis | Tag::Strong | Tag::Link { .. } | Tag::Image { .. } => return,
            _ => {}
        }
        self.space();
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::List(_) => self.lists = self.lists.saturating_sub(1),
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Link | TagEnd::Image => return,
            _ => {}
        }
        self.space();
    }

    fn say(&mut self, text: &str) {
        self.text.push_str(text);
        if let Some(step) = self.steps.last_mut().filter(|_| self.lists > 0) {
            step.push_str(text);
        }
    }

    /// Keeps the words of neighbouring blocks apart.
    fn space(&mut self) {
        let step = self.steps.last_mut().filter(|_| self.lists > 0);
        for text in std::iter::once(&mut self.text).chain(step) {
            if !text.is_empty() && !text.ends_with(char::is_whitespace) {
                text.push(' ');
            }
        }
    }
}

struct Splitter<'a> {
    file: &'a str,
    markdown: &'a str,
    headings: Vec<(HeadingLevel, String)>,
    blocks: Vec<Block>,
    passages: Vec<Passage>,
}

impl Splitter<'_> {
    fn under(&mut self, level: HeadingLevel, text: String) {
        self.flush();
        self.headings.retain(|(above, _)| *above < level);
        self.headings.push((level, text.trim().to_owned()));
    }

    /// Makes passages of the blocks since the last heading.
    fn flush(&mut self) {
        let mut group: Vec<Block> = Vec::new();
        for block in std::mem::take(&mut self.blocks) {
            let start = group.first().map_or(block.range.start, |first| first.range.start);
            // Steps stay with the sentence that introduces them, however long they are.
            let too_long = block.range.end - start > MAX_PASSAGE_BYTES && block.steps.is_empty();
            if too_long && !group.is_empty() {
                self.finish(std::mem::take(&mut group));
            }
            group.push(block);
        }
        if !group.is_empty() {
            self.finish(group);
        }
    }

    fn finish(&mut self, blocks: Vec<Block>) {
        let (Some(first), Some(last)) = (blocks.first(), blocks.last()) else {
            return;
        };
        let markdown = self
            .markdown
            .get(first.range.start..last.range.end)
            .unwrap_or_default()
            .trim()
            .to_owned();
        let text = blocks
            .iter()
            .map(|block| block.text.trim())
            .collect::<Vec<_>>()
            .join(" ");
        if text.trim().is_empty() {
            return;
        }
        let steps = blocks
            .into_iter()
            .map(|block| block.steps)
            .find(|steps| !steps.is_empty())
            .unwrap_or_default();
        self.passages.push(Passage {
            file: self.file.to_owned(),
            headings: self.headings.iter().map(|(_, text)| text.clone()).collect(),
            markdown,
            text,
            steps: steps.iter().map(|step| step.trim().to_owned()).collect(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DOCUMENT: &str = "# Routing\n\nMessages go to *agents*.\n\n## Targets\n\nBy `id` or\nby skill.\n\n\
        | a | b |\n|---|---|\n| one | two |\n\n## It fails\n\nDo this:\n\n1. Look at `muster status`.\n2. Restart.\n\
        \x20  - gently\n\n### Deeper\n\nEnd.\n";

    #[test]
    fn every_heading_has_its_passage() {
        let passages = split("routing.md", DOCUMENT);
        let headings: Vec<String> = passages.iter().map(Passage::heading).collect();
        assert_eq!(
            headings,
            [
                "Routing",
                "Routing > Targets",
                "Routing > It fails",
                "Routing > It fails > Deeper"
            ]
        );
        assert_eq!(passages[0].markdown, "Messages go to *agents*.");
        assert_eq!(passages[0].text, "Messages go to agents.");
        assert_eq!(passages[1].text, "By id or by skill. a b one two");
        assert_eq!(passages[2].steps, ["Look at muster status.", "Restart. gently"]);
        assert_eq!(passages[3].topic(), "Deeper");
    }

    #[test]
    fn long_passages_are_split_between_blocks_and_lose_nothing() {
        let paragraph = "word ".repeat(200);
        let passages = split(
            "long.md",
            &format!("# Long\n\n{paragraph}\n\n{paragraph}\n\n{paragraph}\n"),
        );
        assert_eq!(passages.len(), 3);
        assert!(passages.iter().all(|passage| passage.heading() == "Long"));
    }

    #[test]
    fn nothing_comes_of_nothing() {
        assert!(split("empty.md", "").is_empty());
        assert!(split("headings.md", "# A\n\n## B\n").is_empty());
        assert_eq!(split("plain.md", "No heading.")[0].topic(), "plain.md");
    }

    proptest! {
        #[test]
        fn no_text_panics_and_no_passage_is_empty(text in "(#{1,3} |1\\. |- |\\| a |```|\n|[a-z]{1,8}|é| ){0,60}") {
            for passage in split("any.md", &text) {
                prop_assert!(!passage.text.trim().is_empty());
                prop_assert!(text.contains(passage.markdown.as_str()));
            }
        }
    }
}
