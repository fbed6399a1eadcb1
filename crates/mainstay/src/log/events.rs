//! Events of `tracing` as lines, in the same form as the access line.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use jiff::Timestamp;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::{Sink, access};
use crate::config::LogFormat;

/// The layer that writes events to a sink.
#[derive(Debug)]
pub struct Events {
    sink: Sink,
}

impl Events {
    /// Lines to this sink.
    pub fn new(sink: Sink) -> Self {
        Self { sink }
    }
}

#[derive(Default)]
struct Found {
    message: String,
    fields: Map<String, Value>,
}

impl Visit for Found {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a string cannot fail.
            let _ = write!(self.message, "{value:?}");
        } else {
            self.fields.insert(field.name().to_owned(), format!("{value:?}").into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.fields.insert(field.name().to_owned(), value.into());
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.insert(field.name().to_owned(), value.into());
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut found = Found::default();
        event.record(&mut found);
        let request = crate::context::current();
        let level = *event.metadata().level();
        let now = Timestamp::now();
        let mut line = Vec::with_capacity(256);
        match self.sink.format() {
            LogFormat::Json => {
                // The fields of the event first, so that none of them can take the place of one of ours.
                let mut object = found.fields;
                object.insert("timestamp".to_owned(), format!("{now:.6}").into());
                object.insert("level".to_owned(), access::name(level).into());
                object.insert("target".to_owned(), event.metadata().target().into());
                object.insert("message".to_owned(), found.message.into());
                if let Some(request) = request {
                    object.insert("request_id".to_owned(), request.id.as_str().into());
                }
                let _ = serde_json::to_writer(&mut line, &object);
            }
            LogFormat::Text => {
                let _ = write!(line, "{} {:>5} {}", now.strftime("%H:%M:%S%.3f"), level.as_str(), found.message.escape_debug());
                for (name, value) in &found.fields {
                    let _ = match value {
                        Value::String(text) => write!(line, " {name}={}", text.escape_debug()),
                        other => write!(line, " {name}={other}"),
                    };
                }
                if let Some(request) = request {
                    let _ = write!(line, " id {}", request.id.as_str());
                }
            }
        }
        line.push(b'\n');
        self.sink.write(&line);
    }
}
