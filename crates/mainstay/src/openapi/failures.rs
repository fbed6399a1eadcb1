//! The failing answers: each status with every code it may carry, in both forms, and an example of each.

use serde_json::{Value, json};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::schema::{AllOfBuilder, Type};
use utoipa::openapi::{Components, Content, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder, Schema};

use crate::error::Code;

/// The name of the shared answer of this status with these codes, which is made at its first use.
pub(super) fn component(status: u16, failures: &[&'static Code], components: &mut Components) -> String {
    let names = failures.iter().map(|code| code.name).collect::<Vec<_>>();
    let name = format!("{status}.{}", names.join("."));
    for form in ["Error", "Problem"] {
        components.schemas.entry(format!("{form}.{name}")).or_insert_with(|| narrowed(form, failures));
    }
    components.responses.entry(name.clone()).or_insert_with(|| RefOr::T(answer(status, &name, failures)));
    name
}

/// The schema of a form, with the codes that are possible here and no other.
fn narrowed(form: &str, failures: &[&'static Code]) -> RefOr<Schema> {
    let code = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(failures.iter().map(|code| code.name)));
    AllOfBuilder::new().item(Ref::from_schema_name(form)).item(ObjectBuilder::new().property("code", code)).into()
}

fn answer(status: u16, name: &str, failures: &[&'static Code]) -> Response {
    let sentences = failures.iter().map(|code| format!("`{}`: {}", code.name, code.message)).collect::<Vec<_>>().join(". ");
    let mut response = ResponseBuilder::new()
        .description(sentences + ".")
        .content("application/json", content(&format!("Error.{name}"), failures, envelope))
        .content("application/problem+json", content(&format!("Problem.{name}"), failures, problem))
        .build();
    let mut headers = vec!["x-request-id", "Access-Control-Allow-Origin"];
    match status {
        401 => headers.push("WWW-Authenticate"),
        429 | 503 => headers.push("Retry-After"),
        _ => {}
    }
    if status < 500 {
        headers.extend(["RateLimit", "RateLimit-Policy"]);
    }
    for name in headers {
        response.headers.insert(name.to_owned(), RefOr::Ref(Ref::new(format!("#/components/headers/{name}"))));
    }
    response
}

/// One form of the answer.
fn content(schema: &str, failures: &[&'static Code], body: impl Fn(&Code) -> Value) -> Content {
    let mut content = Content::new(Some(RefOr::Ref(Ref::from_schema_name(schema))));
    content.examples = failures
        .iter()
        .map(|code| (code.name.to_owned(), RefOr::T(ExampleBuilder::new().summary(code.message).value(Some(body(code))).build())))
        .collect();
    content
}

fn envelope(code: &Code) -> Value {
    json!({"status": "error", "code": code.name, "message": code.message, "errors": fields(code),
        "request_id": "0198c5c2e1f47c6f9d0a3b5e8f214a77", "timestamp": "2026-01-01T00:00:00Z"})
}

fn problem(code: &Code) -> Value {
    json!({"type": format!("urn:mainstay:error:{}", code.name), "title": code.message, "status": code.status.as_u16(), "detail": code.message,
        "code": code.name, "errors": fields(code), "request_id": "0198c5c2e1f47c6f9d0a3b5e8f214a77", "timestamp": "2026-01-01T00:00:00Z"})
}

/// The fields as the failures of the extractors name them.
fn fields(code: &Code) -> Value {
    match code.name {
        "validation_failed" => json!([{"field": "name", "code": "required", "message": "must not be empty"}]),
        "invalid_query_parameter" => json!([{"field": "limit", "code": "out_of_range", "message": "must be 1 to 100"}]),
        "invalid_path_parameter" => json!([{"field": "id", "code": "invalid_format", "message": "must be a UUID, version 4"}]),
        _ => json!([]),
    }
}
