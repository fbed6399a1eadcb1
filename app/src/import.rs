//! Import of a catalogue: NDJSON, plain or packed, as a stream. Nothing is ever held but the batch in hand, so memory does not depend on the file.
//!
//! It is repeatable: products are recognised by their SKU, changed ones are updated, and those that are as they were are left alone (their version, their
//! time of change and the search index do not move). A line that cannot be taken is reported with its number and does not stop the others.

mod source;
mod upsert;

use std::collections::HashSet;

use mainstay::clock::Clock;
use mainstay::error::{Error, Result, codes};
use mainstay::extract::parse_json;
use mainstay::store::Database;
use tokio::sync::mpsc;

use crate::products::Product;
use crate::products::input::WriteProduct;

pub use source::{Line, Source};

/// Products written in one transaction: few enough to lose little at a stop and to let other writers in between, many enough to make the disk's work small.
const BATCH: usize = 200;
/// Batches that are read ahead while one is being written.
const AHEAD: usize = 2;

/// What an import did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Lines with something on them.
    pub lines: u64,
    /// Products that were not there.
    pub created: u64,
    /// Products that were different.
    pub updated: u64,
    /// Products that were as they are in the file.
    pub unchanged: u64,
    /// Lines that could not be taken.
    pub refused: u64,
}

/// A line that could not be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The number of the line, from 1.
    pub line: u64,
    /// Why.
    pub reason: String,
}

/// How far an import is: bytes of the file read so far.
pub type Progress = u64;

enum Step {
    Batch { products: Vec<Product>, lines: u64, read: u64 },
    Refused(Refusal),
}

/// Reads `source` to its end. `progress` is told of every batch written, `refused` of every line that could not be taken, as they come.
///
/// # Errors
/// When the source cannot be read or the database fails. What was written before stays, and a repetition goes on from there.
pub async fn run(
    source: Source,
    database: &Database,
    clock: &Clock,
    mut progress: impl FnMut(Progress),
    mut refused: impl FnMut(Refusal),
) -> Result<Report> {
    let (steps, mut received) = mpsc::channel(AHEAD);
    let clock_of_reader = clock.clone();
    let reader = tokio::task::spawn_blocking(move || read(source, &clock_of_reader, &steps));
    let mut report = Report::default();
    while let Some(step) = received.recv().await {
        match step {
            Step::Refused(refusal) => {
                report.lines += 1;
                report.refused += 1;
                refused(refusal);
            }
            Step::Batch { products, lines, read } => {
                let mut transaction = database.begin(None).await?;
                let outcome = upsert::batch(&mut transaction, &products).await?;
                transaction.commit().await?;
                report.lines += lines;
                report.created += outcome.created;
                report.updated += outcome.updated;
                report.unchanged += outcome.unchanged;
                progress(read);
            }
        }
    }
    let read = reader.await.map_err(|error| Error::new(&codes::INTERNAL).caused_by(error))?;
    read.map_err(|error| Error::new(&codes::INTERNAL).with_message(format!("The source cannot be read: {error}")).caused_by(error))?;
    Ok(report)
}

/// Reads lines into batches. A product that comes twice goes into two batches, so that the later line wins.
fn read(mut source: Source, clock: &Clock, steps: &mpsc::Sender<Step>) -> std::io::Result<()> {
    let mut products: Vec<Product> = Vec::with_capacity(BATCH);
    let mut skus = HashSet::new();
    let mut number = 0;
    loop {
        let line = source.next_line()?;
        let at_end = matches!(line, Line::End);
        let parsed = match line {
            Line::End => None,
            Line::Blank => {
                number += 1;
                continue;
            }
            Line::TooLong => Some(Err("is longer than 1 MiB".to_owned())),
            Line::Text(text) => Some(parse(text, clock)),
        };
        number += u64::from(!at_end);
        let full = products.len() >= BATCH;
        let twice = matches!(&parsed, Some(Ok(product)) if product.sku.as_ref().is_some_and(|sku| skus.contains(sku)));
        if (at_end || full || twice) && !products.is_empty() {
            skus.clear();
            let batch = Step::Batch {
                lines: products.len() as u64,
                products: std::mem::replace(&mut products, Vec::with_capacity(BATCH)),
                read: source.bytes_read(),
            };
            // The other side is gone only after an error that it reports itself.
            if steps.blocking_send(batch).is_err() {
                return Ok(());
            }
        }
        match parsed {
            None => return Ok(()),
            Some(Ok(product)) => {
                skus.extend(product.sku.clone());
                products.push(product);
            }
            Some(Err(reason)) => {
                if steps.blocking_send(Step::Refused(Refusal { line: number, reason })).is_err() {
                    return Ok(());
                }
            }
        }
    }
}

/// A line as the product that it describes.
///
/// # Errors
/// Why it cannot be taken, in words.
pub fn parse(line: &[u8], clock: &Clock) -> Result<Product, String> {
    let words = |error: Error| match error.fields() {
        [] => error.message().to_owned(),
        fields => fields.iter().map(|field| format!("{} {}", field.field, field.message)).collect::<Vec<_>>().join("; "),
    };
    let value = parse_json(line).map_err(|error| words(error).replace("Request body", "The line"))?;
    let written: WriteProduct = mainstay::extract::from_value(value).map_err(words)?;
    if written.sku.is_none() {
        return Err("sku is required: it is how a repeated import recognises a product".to_owned());
    }
    Ok(Product::new(written.parse().map_err(words)?, clock.now()))
}
