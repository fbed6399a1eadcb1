//! One pass over everything that matches: how many, the best of them, and how often each facet value occurs.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::{Column, StrColumn};
use tantivy::{DocAddress, DocId, Score, SegmentOrdinal, SegmentReader};
use uuid::Uuid;

use crate::fields::{HIGH, LOW};

/// Most values of a facet in an answer: what a page can show beside a list.
pub const FACET_VALUES_MAX: usize = 20;

/// How many of the commonest values each segment of the index contributes to a facet. With one segment counts are exact;
/// with several, a value beyond its segment's first 100 is missing from the sum, which the first 20 do not notice.
const SEGMENT_VALUES_MAX: usize = 100;

/// A document in the order of an answer: the better score first, then the smaller id, which no merge changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ranked {
    pub(crate) score: Score,
    pub(crate) id: Uuid,
    pub(crate) at: DocAddress,
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    /// `Less` is better: the top of a heap of these is the worst, the one to drop.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.score.total_cmp(&self.score)).then_with(|| self.id.cmp(&other.id))
    }
}

/// What one pass gives.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) total: u64,
    pub(crate) best: Vec<Ranked>,
    pub(crate) facets: Vec<HashMap<String, u64>>,
}

/// The collector; `keep` is offset plus limit.
pub(crate) struct Page {
    pub(crate) keep: usize,
    pub(crate) scored: bool,
    pub(crate) facets: Vec<String>,
}

pub(crate) struct SegmentPage {
    segment: SegmentOrdinal,
    keep: usize,
    high: Column<u64>,
    low: Column<u64>,
    total: u64,
    worst: Score,
    best: BinaryHeap<Ranked>,
    facets: Vec<Option<Counts>>,
}

struct Counts {
    column: StrColumn,
    of: Vec<u32>,
}

impl Collector for Page {
    type Fruit = Collected;
    type Child = SegmentPage;

    fn for_segment(&self, segment: SegmentOrdinal, reader: &SegmentReader) -> tantivy::Result<SegmentPage> {
        let columns = reader.fast_fields();
        let mut facets = Vec::with_capacity(self.facets.len());
        for name in &self.facets {
            facets.push(columns.str(name)?.map(|column| Counts { of: vec![0; column.num_terms()], column }));
        }
        Ok(SegmentPage {
            segment,
            keep: self.keep,
            high: columns.u64(HIGH)?,
            low: columns.u64(LOW)?,
            total: 0,
            worst: Score::NEG_INFINITY,
            best: BinaryHeap::with_capacity(self.keep + 1),
            facets,
        })
    }

    fn requires_scoring(&self) -> bool {
        self.scored
    }

    fn merge_fruits(&self, segments: Vec<tantivy::Result<Collected>>) -> tantivy::Result<Collected> {
        let mut all = Collected { facets: vec![HashMap::new(); self.facets.len()], ..Collected::default() };
        for segment in segments {
            let segment = segment?;
            all.total += segment.total;
            all.best.extend(segment.best);
            for (sum, part) in all.facets.iter_mut().zip(segment.facets) {
                for (value, count) in part {
                    *sum.entry(value).or_default() += count;
                }
            }
        }
        all.best.sort_unstable();
        all.best.truncate(self.keep);
        Ok(all)
    }
}

impl SegmentPage {
    fn rank(&mut self, doc: DocId, score: Score) {
        let id = Uuid::from_u64_pair(self.high.first(doc).unwrap_or_default(), self.low.first(doc).unwrap_or_default());
        let at = DocAddress::new(self.segment, doc);
        let ranked = Ranked { score, id, at };
        if self.best.len() < self.keep {
            self.best.push(ranked);
        } else if let Some(mut worst) = self.best.peek_mut()
            && ranked < *worst
        {
            *worst = ranked;
        }
        if self.best.len() == self.keep
            && let Some(worst) = self.best.peek()
        {
            self.worst = worst.score;
        }
    }
}

impl SegmentCollector for SegmentPage {
    type Fruit = tantivy::Result<Collected>;

    fn collect(&mut self, doc: DocId, score: Score) {
        self.total += 1;
        if score >= self.worst && self.keep > 0 {
            self.rank(doc, score);
        }
        for counts in self.facets.iter_mut().flatten() {
            for ord in counts.column.term_ords(doc) {
                if let Some(count) = usize::try_from(ord).ok().and_then(|ord| counts.of.get_mut(ord)) {
                    *count += 1;
                }
            }
        }
    }

    fn harvest(self) -> Self::Fruit {
        let mut facets = Vec::with_capacity(self.facets.len());
        for counts in self.facets {
            facets.push(match counts {
                Some(counts) => commonest(&counts)?,
                None => HashMap::new(),
            });
        }
        Ok(Collected { total: self.total, best: self.best.into_vec(), facets })
    }
}

fn commonest(counts: &Counts) -> tantivy::Result<HashMap<String, u64>> {
    let mut ords: Vec<(u32, u64)> = (counts.of.iter().zip(0u64..)).filter(|(count, _)| **count > 0).map(|(count, ord)| (*count, ord)).collect();
    if ords.len() > SEGMENT_VALUES_MAX {
        ords.select_nth_unstable_by(SEGMENT_VALUES_MAX, |a, b| b.cmp(a));
        ords.truncate(SEGMENT_VALUES_MAX);
    }
    let mut out = HashMap::with_capacity(ords.len());
    for (count, ord) in ords {
        let mut value = String::new();
        if counts.column.ord_to_str(ord, &mut value)? {
            out.insert(value, u64::from(count));
        }
    }
    Ok(out)
}
