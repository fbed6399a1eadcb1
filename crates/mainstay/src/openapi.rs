//! Completes the OpenAPI document that the handlers' types give: the failures that every route shares, their bodies in both forms, and the way to sign in.
//!
//! A handler declares what is its own (its success, its 404, its 409). What the stack does for every route is added here, by rule, so that no handler can forget it.

use serde_json::{Value, json};
use utoipa::PartialSchema;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, Content, Header, OpenApi, Ref, RefOr, Response, ResponseBuilder};

use crate::error::{Code, ErrorBody, FieldError, ProblemBody, codes};

/// The name under which the document knows our tokens.
pub const BEARER: &str = "bearer";

/// Adds to each operation the failures of the stack, to the document their schemas and the security scheme. `own` are the codes of the service.
pub fn complete(document: &mut OpenApi, own: &[&'static Code]) {
    let mut components = document.components.take().unwrap_or_else(|| ComponentsBuilder::new().build());
    components.schemas.insert("Error".to_owned(), ErrorBody::schema());
    components.schemas.insert("Problem".to_owned(), ProblemBody::schema());
    components.schemas.insert("FieldError".to_owned(), FieldError::schema());
    let mut bearer = Http::new(HttpAuthScheme::Bearer);
    bearer.bearer_format = Some("JWT".to_owned());
    bearer.description = Some("The `access_token` of `POST /api/auth/login`, as RFC 8725 would have it verified.".to_owned());
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    document.components = Some(components);
    for item in document.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        operations.into_iter().flatten().for_each(|operation| finish(operation, own));
    }
    let table = codes::ALL.iter().chain(own).map(|code| format!("| `{}` | {} | {} |", code.name, code.status.as_u16(), code.message));
    let heading = "\n\n## Error codes\n\n| code | status | message |\n|---|---|---|\n".to_owned();
    let list = table.collect::<Vec<_>>().join("\n");
    document.info.description = Some(document.info.description.take().unwrap_or_default() + &heading + &list);
}

fn finish(operation: &mut Operation, own: &[&'static Code]) {
    // `security(())` is a requirement that asks for nothing.
    let secured = operation.security.as_ref().is_some_and(|security| security.iter().any(|asked| *asked != SecurityRequirement::default()));
    let unlimited = operation.tags.as_ref().is_some_and(|tags| tags.iter().any(|tag| tag == "health"));
    let mut failures = vec![&codes::MALFORMED_REQUEST, &codes::REQUEST_TIMEOUT, &codes::PAYLOAD_TOO_LARGE, &codes::URI_TOO_LONG];
    failures.extend([&codes::UNSUPPORTED_MEDIA_TYPE, &codes::HEADERS_TOO_LARGE, &codes::INTERNAL, &codes::DEADLINE_EXCEEDED]);
    if operation.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty()) {
        failures.extend([&codes::INVALID_PATH, &codes::INVALID_QUERY]);
    }
    if operation.request_body.is_some() {
        failures.extend([&codes::INVALID_JSON, &codes::MISSING_BODY, &codes::VALIDATION_FAILED]);
    }
    if secured {
        failures.extend([&codes::AUTHENTICATION_REQUIRED, &codes::INVALID_TOKEN, &codes::FORBIDDEN]);
    }
    if !unlimited {
        failures.extend([&codes::RATE_LIMITED, &codes::OVERLOADED, &codes::DATABASE_UNAVAILABLE, &codes::TRANSACTION_CONFLICT]);
    }
    let mut by_status: std::collections::BTreeMap<u16, Vec<&'static Code>> = std::collections::BTreeMap::new();
    for code in failures {
        by_status.entry(code.status.as_u16()).or_default().push(code);
    }
    // What the handler itself declares by the name of its code, as the description of the response.
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        let Some(code) = own.iter().find(|code| code.name == response.description && status == code.status.as_str()) else { continue };
        by_status.entry(code.status.as_u16()).or_default().insert(0, code);
    }
    for (status, failures) in by_status {
        operation.responses.responses.insert(status.to_string(), RefOr::T(failure(status, &failures)));
    }
    for response in operation.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            response
                .headers
                .entry("x-request-id".to_owned())
                .or_insert_with(|| header("The id under which the log knows this request", "0198c5c2e1f47c6f9d0a3b5e8f214a77"));
            if !unlimited {
                response.headers.entry("RateLimit".to_owned()).or_insert_with(|| header("What is left of the quota", r#""address";r=99;t=900"#));
                response.headers.entry("RateLimit-Policy".to_owned()).or_insert_with(|| header("The quota", r#""address";q=100;w=900"#));
            }
        }
    }
}

/// One failing answer: every code it may have, in both forms.
fn failure(status: u16, failures: &[&'static Code]) -> Response {
    let names = failures.iter().map(|code| format!("`{}`", code.name)).collect::<Vec<_>>().join(", ");
    let content = |schema: &str, example: Value| {
        let mut content = Content::new(Some(RefOr::Ref(Ref::from_schema_name(schema))));
        content.example = Some(example);
        content
    };
    // Every status in the table has at least one code, or it would not be here.
    let Some(first) = failures.first() else { return Response::new(names) };
    let envelope = json!({"status": "error", "code": first.name, "message": first.message, "errors": [], "request_id": "0198c5c2e1f47c6f9d0a3b5e8f214a77", "timestamp": "2026-01-01T00:00:00Z"});
    let problem = json!({"type": format!("urn:mainstay:error:{}", first.name), "title": first.message, "status": status, "detail": first.message, "code": first.name,
        "errors": [], "request_id": "0198c5c2e1f47c6f9d0a3b5e8f214a77", "timestamp": "2026-01-01T00:00:00Z"});
    let mut response = ResponseBuilder::new()
        .description(names)
        .content("application/json", content("Error", envelope))
        .content("application/problem+json", content("Problem", problem))
        .build();
    match status {
        401 => drop(response.headers.insert("WWW-Authenticate".to_owned(), header("How to authenticate", "Bearer"))),
        429 | 503 => drop(response.headers.insert("Retry-After".to_owned(), header("Seconds to wait before trying again", "1"))),
        _ => {}
    }
    response
}

fn header(description: &str, example: &str) -> RefOr<Header> {
    let schema = utoipa::openapi::ObjectBuilder::new().schema_type(utoipa::openapi::schema::Type::String).examples([json!(example)]).build();
    let mut header = Header::new(schema);
    header.description = Some(description.to_owned());
    RefOr::T(header)
}
