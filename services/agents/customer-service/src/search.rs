//! Full-text search over passages, with a confidence that means something.
//!
//! Passages are ranked by BM25 (tantivy, in memory, English stemming; a word in a heading counts twice). BM25 scores
//! have no scale of their own, so the confidence is computed beside them, from 0 to 1:
//!
//! > confidence = coverage × specificity × clarity
//!
//! * **coverage**: the share of the question's words that the passage or its headings contain, weighted by how rare
//!   each is (inverse document frequency). A word that no passage knows weighs as much as the rarest: a question
//!   about bread is not answered by a passage that shares its verb.
//! * **specificity**: how much the covered words tell, `1 − exp(−2 × information)`, where information is the sum of
//!   their weights in units of the rarest word's, a word that no heading of the passage has counting 0.6 of that: one
//!   common word ("agents"), or a rare one in passing, points nowhere in particular.
//! * **clarity**: 0.85, rising to 1 as the lead over the best passage under another heading reaches a quarter of the
//!   score: two passages that answer alike need a question back.
//!
//! Small talk ("hello, could you please tell me how") is left out of the question beforehand.
//! The index is built once with a writer heap of 15 MB, the least tantivy accepts, which is released afterwards.

use std::collections::HashSet;

use tantivy::collector::TopDocs;
use tantivy::query::{BooleanQuery, BoostQuery, Occur, Query, TermQuery};
use tantivy::schema::{Field, IndexRecordOption, STORED, Schema, TextFieldIndexing, TextOptions, Value as _};
use tantivy::tokenizer::{
    Language, LowerCaser, RemoveLongFilter, SimpleTokenizer, Stemmer, StopWordFilter, TextAnalyzer,
};
use tantivy::{Index, IndexReader, ReloadPolicy, TantivyDocument, TantivyError, Term, doc};

use crate::passage::Passage;

/// Different words of a question that count; the rest is cut.
pub const MAX_TERMS: usize = 64;
/// Passages of one answer.
const CANDIDATES: usize = 8;
const WRITER_HEAP_BYTES: usize = 15_000_000;
const HEADING_BOOST: f32 = 2.0;
const ANALYZER: &str = "english";

/// Words by which people ask, not what they ask about.
const SMALL_TALK: &str = "\
    about again all also am any anyone anything been being can cannot could d day dear did do does doing \
    done else explain from get give good got had has have hello help here hey hi hm how i idea its just \
    know let like ll m made make many me mean means meant much my need now ok okay one our please \
    possible question re really s say shall should show so some something still t tell than thank thanks \
    there thing too try trying us use used uses using ve very want way we were what when where which who \
    why work works would yes you your";

/// A passage that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit<'a> {
    /// What was found.
    pub passage: &'a Passage,
    /// BM25; comes without a scale.
    pub score: f32,
    /// Share of the question that the passage covers, 0 to 1.
    pub coverage: f64,
}

/// What a question found.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding<'a> {
    /// Best first.
    pub hits: Vec<Hit<'a>>,
    /// How sure it is that the first answers the question, 0 to 1; 0 without hits.
    pub confidence: f64,
}

/// Passages, ready to be searched.
pub struct Library {
    passages: Vec<Passage>,
    words: Vec<Words>,
    reader: IndexReader,
    fields: Fields,
    analyzer: TextAnalyzer,
}

/// The stems of a passage.
struct Words {
    heading: HashSet<String>,
    text: HashSet<String>,
}

impl Words {
    fn of(passage: &Passage, analyzer: &TextAnalyzer) -> Self {
        let stems = |text: &str| terms(analyzer, text).into_iter().collect();
        Self {
            heading: stems(&passage.heading()),
            text: stems(&passage.text),
        }
    }

    fn contains(&self, word: &str) -> bool {
        self.heading.contains(word) || self.text.contains(word)
    }

    /// How much of a word's weight tells that the passage is about it.
    fn prominence(&self, word: &str) -> f64 {
        const IN_PASSING: f64 = 0.6;
        if self.heading.contains(word) {
            1.0
        } else {
            IN_PASSING
        }
    }
}

#[derive(Clone, Copy)]
struct Fields {
    number: Field,
    heading: Field,
    text: Field,
}

impl Library {
    /// Indexes `passages`.
    ///
    /// # Errors
    /// When tantivy fails, which in memory it does not but for lack of it.
    pub fn new(passages: Vec<Passage>) -> Result<Self, TantivyError> {
        let indexing = TextFieldIndexing::default()
            .set_tokenizer(ANALYZER)
            .set_index_option(IndexRecordOption::WithFreqs);
        let options = TextOptions::default().set_indexing_options(indexing);
        let mut schema = Schema::builder();
        let fields = Fields {
            number: schema.add_u64_field("number", STORED),
            heading: schema.add_text_field("heading", options.clone()),
            text: schema.add_text_field("text", options),
        };
        let index = Index::create_in_ram(schema.build());
        let analyzer = analyzer();
        index.tokenizers().register(ANALYZER, analyzer.clone());
        let mut writer = index.writer_with_num_threads(1, WRITER_HEAP_BYTES)?;
        for (number, passage) in (0_u64..).zip(&passages) {
            writer.add_document(doc!(
                fields.number => number,
                fields.heading => passage.heading(),
                fields.text => passage.text.as_str(),
            ))?;
        }
        writer.commit()?;
        writer.wait_merging_threads()?;
        let reader = index
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .try_into()?;
        let words = passages
            .iter()
            .map(|passage| Words::of(passage, &analyzer))
            .collect();
        Ok(Self {
            passages,
            words,
            reader,
            fields,
            analyzer,
        })
    }

    /// What can be found.
    #[must_use]
    pub fn passages(&self) -> &[Passage] {
        &self.passages
    }

    /// The passages that `accept` lets through and that fit `question` best.
    ///
    /// # Errors
    /// When tantivy fails.
    pub fn search(
        &self,
        question: &str,
        accept: impl Fn(&Passage) -> bool,
    ) -> Result<Finding<'_>, TantivyError> {
        let terms = distinct(terms(&self.analyzer, question));
        let searcher = self.reader.searcher();
        let everything = TopDocs::with_limit(self.passages.len().max(1)).order_by_score();
        let found = searcher.search(&self.query(&terms), &everything)?;
        let weights: Vec<f64> = terms.iter().map(|term| self.weight(term)).collect();
        let mut hits = Vec::new();
        for (score, address) in found {
            let document: TantivyDocument = searcher.doc(address)?;
            let number = document
                .get_first(self.fields.number)
                .and_then(|number| number.as_u64());
            let Some(number) = number.and_then(|number| usize::try_from(number).ok()) else {
                continue;
            };
            let (Some(passage), Some(words)) = (self.passages.get(number), self.words.get(number)) else {
                continue;
            };
            if !accept(passage) {
                continue;
            }
            let (mut covered, mut information) = (0.0, 0.0);
            for (term, weight) in terms
                .iter()
                .zip(&weights)
                .filter(|(term, _)| words.contains(term))
            {
                covered += weight;
                information += weight * words.prominence(term) / self.rarest();
            }
            let total: f64 = weights.iter().sum();
            let coverage = covered / total.max(f64::MIN_POSITIVE);
            hits.push((
                Hit {
                    passage,
                    score,
                    coverage,
                },
                information,
            ));
            if hits.len() == CANDIDATES {
                break;
            }
        }
        let confidence = hits.first().map_or(0.0, |(best, information)| {
            let rival = hits
                .iter()
                .map(|(hit, _)| hit)
                .find(|hit| hit.passage.headings != best.passage.headings);
            confidence(
                best.coverage,
                *information,
                best.score,
                rival.map_or(0.0, |rival| rival.score),
            )
        });
        Ok(Finding {
            hits: hits.into_iter().map(|(hit, _)| hit).collect(),
            confidence,
        })
    }

    fn query(&self, terms: &[String]) -> BooleanQuery {
        let clauses = terms.iter().flat_map(|term| {
            let query =
                |field| TermQuery::new(Term::from_field_text(field, term), IndexRecordOption::WithFreqs);
            let heading: Box<dyn Query> = Box::new(BoostQuery::new(
                Box::new(query(self.fields.heading)),
                HEADING_BOOST,
            ));
            let text: Box<dyn Query> = Box::new(query(self.fields.text));
            [(Occur::Should, heading), (Occur::Should, text)]
        });
        BooleanQuery::new(clauses.collect())
    }

    /// Inverse document frequency, as BM25 has it; of a word that no passage has, as if one had it.
    fn weight(&self, term: &str) -> f64 {
        let holders = self.words.iter().filter(|words| words.contains(term)).count();
        inverse_frequency(self.words.len(), holders.max(1))
    }

    /// The weight of a word that one passage has.
    fn rarest(&self) -> f64 {
        inverse_frequency(self.words.len(), 1)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "there are far fewer than 2^53 passages"
)]
fn inverse_frequency(passages: usize, holders: usize) -> f64 {
    let (passages, holders) = (passages.max(holders) as f64, holders as f64);
    (1.0 + (passages - holders + 0.5) / (holders + 0.5)).ln()
}

/// See the module.
fn confidence(coverage: f64, information: f64, best: f32, rival: f32) -> f64 {
    const CLEAR_LEAD: f64 = 0.25;
    if best <= 0.0 {
        return 0.0;
    }
    let specificity = 1.0 - (-2.0 * information).exp();
    let lead = f64::from((best - rival) / best).clamp(0.0, CLEAR_LEAD) / CLEAR_LEAD;
    (coverage * specificity * (0.85 + 0.15 * lead)).clamp(0.0, 1.0)
}

fn analyzer() -> TextAnalyzer {
    let builder = TextAnalyzer::builder(SimpleTokenizer::default())
        .filter(RemoveLongFilter::limit(64))
        .filter(LowerCaser)
        .dynamic();
    let builder = match StopWordFilter::new(Language::English) {
        Some(filter) => builder.filter_dynamic(filter),
        None => builder,
    };
    builder
        .filter_dynamic(StopWordFilter::remove(
            SMALL_TALK.split_whitespace().map(str::to_owned),
        ))
        .filter_dynamic(Stemmer::new(Language::English))
        .build()
}

fn terms(analyzer: &TextAnalyzer, text: &str) -> Vec<String> {
    let mut analyzer = analyzer.clone();
    let mut stream = analyzer.token_stream(text);
    let mut terms = Vec::new();
    while let Some(token) = stream.next() {
        terms.push(token.text.clone());
    }
    terms
}

fn distinct(terms: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    terms
        .into_iter()
        .filter(|term| seen.insert(term.clone()))
        .take(MAX_TERMS)
        .collect()
}

#[cfg(test)]
mod tests;
