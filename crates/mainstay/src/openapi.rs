//! Completes the OpenAPI document that the handlers' types give: the failures that every route shares, their bodies in both forms, and the way to sign in.
//!
//! A handler declares what is its own: its success, and for each status of failure the names of the codes it gives, as the description
//! (`(status = 404, description = "user_not_found")`). What the stack does for every route is added here, by rule, so that no handler can forget it.
//! Each failing answer says exactly which codes it may carry, with an example of each, so a client's generator and a fuzzer can hold the service to it.

mod bounds;
mod failures;

use std::collections::BTreeMap;

use serde_json::json;
use utoipa::PartialSchema;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::schema::Type;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, Header, ObjectBuilder, OpenApi, Ref, RefOr};

use crate::error::{Code, ErrorBody, FieldError, ProblemBody, codes};

/// The name under which the document knows our access tokens.
pub const BEARER: &str = "bearer";
/// The name under which the document knows API keys. What stands behind it in an operation is the scope that a key needs.
pub const API_KEY: &str = "api_key";
/// Operations under this tag are never refused by a limit, so they carry no fields of one.
const UNLIMITED_TAG: &str = "health";

/// Adds to each operation the failures of the stack, to the document their schemas and the security scheme. `own` are the codes of the service.
pub fn complete(document: &mut OpenApi, own: &[&'static Code]) {
    let mut components = document.components.take().unwrap_or_default();
    components.schemas.insert("Error".to_owned(), ErrorBody::schema());
    components.schemas.insert("Problem".to_owned(), ProblemBody::schema());
    components.schemas.insert("FieldError".to_owned(), FieldError::schema());
    components.headers.extend(headers());
    let mut bearer = Http::new(HttpAuthScheme::Bearer);
    bearer.bearer_format = Some("JWT".to_owned());
    bearer.description =
        Some("The `access_token` of `POST /api/auth/login`: a JWT, verified as RFC8725 recommends, with its algorithm pinned to the key.".to_owned());
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer));
    let keys = document.paths.paths.values().any(|item| operations(item).any(|operation| requires(operation, API_KEY)));
    if keys {
        let mut key = Http::new(HttpAuthScheme::Bearer);
        key.description = Some(
            "An API key of `POST /api/auth/keys`, in the place of an access token: for machines. The operation names the scope that the key needs."
                .to_owned(),
        );
        components.add_security_scheme(API_KEY, SecurityScheme::Http(key));
    }
    for item in document.paths.paths.values_mut() {
        let operations =
            [(&mut item.get, true), (&mut item.post, false), (&mut item.put, false), (&mut item.patch, false), (&mut item.delete, false)];
        for (operation, reads) in operations {
            if let Some(operation) = operation {
                finish(operation, reads, own, &mut components);
            }
        }
    }
    components.schemas.values_mut().for_each(bounds::schema);
    for server in document.servers.iter_mut().flatten() {
        // Whom the server is for, as API inventories want to know it (OWASP API9:2023).
        server.extensions = Some(ExtensionsBuilder::new().add("x-internal", false).build());
    }
    document.components = Some(components);
    drop_unused_schemas(document);
    let table = codes::ALL.iter().chain(own).map(|code| format!("| `{}` | {} | {} |", code.name, code.status.as_u16(), code.message));
    // Folded: a reader comes for the operations first.
    let heading = "\n\n<details><summary>All error codes</summary>\n\n| code | status | message |\n|---|---|---|\n";
    let list = table.collect::<Vec<_>>().join("\n");
    document.info.description = Some(document.info.description.take().unwrap_or_default() + heading + &list + "\n\n</details>");
}

fn operations(item: &PathItem) -> impl Iterator<Item = &Operation> {
    [&item.get, &item.post, &item.put, &item.patch, &item.delete].into_iter().flatten()
}

/// Is this scheme one of the ways in?
fn requires(operation: &Operation, scheme: &str) -> bool {
    let bare = SecurityRequirement::default();
    // The type tells nothing but by its JSON.
    let names = |requirement: &SecurityRequirement| serde_json::to_value(requirement).is_ok_and(|value| value.get(scheme).is_some());
    operation.security.iter().flatten().any(|requirement| requirement != &bare && names(requirement))
}

/// Adds what the stack does to one operation.
fn finish(operation: &mut Operation, reads: bool, own: &[&'static Code], components: &mut Components) {
    let unlimited = operation.tags.as_ref().is_some_and(|tags| tags.iter().any(|tag| tag == UNLIMITED_TAG));
    let mut by_status: BTreeMap<u16, Vec<&'static Code>> = BTreeMap::new();
    let mut add = |code: &'static Code| by_status.entry(code.status.as_u16()).or_default().push(code);
    for (status, response) in &operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        let names = response.description.split(',').map(str::trim);
        let declared = names.filter_map(|name| own.iter().chain(codes::ALL).find(|code| code.name == name && status == code.status.as_str()));
        declared.for_each(|code| add(code));
    }
    shared(operation, reads, unlimited).into_iter().for_each(&mut add);
    for (status, failures) in by_status {
        let name = failures::component(status, &failures, components);
        operation.responses.responses.insert(status.to_string(), RefOr::Ref(Ref::from_response_name(name)));
    }
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        for header in response.headers.values_mut() {
            if let RefOr::T(Header { schema: Some(schema), .. }) = header {
                bounds::header(schema);
            }
        }
        let limits: &[&str] = if unlimited { &[] } else { &["RateLimit", "RateLimit-Policy"] };
        for name in ["x-request-id", "Access-Control-Allow-Origin"].iter().chain(limits) {
            response.headers.insert((*name).to_owned(), RefOr::Ref(Ref::new(format!("#/components/headers/{name}"))));
        }
    }
    for parameter in operation.parameters.iter_mut().flatten() {
        if let RefOr::T(parameter) = parameter {
            parameter.schema.as_mut().into_iter().for_each(bounds::schema);
        }
    }
}

/// The failures that an operation of this kind can meet in the stack and in the extractors.
fn shared(operation: &Operation, reads: bool, unlimited: bool) -> Vec<&'static Code> {
    let takes = |place: ParameterIn| {
        let parameters = operation.parameters.iter().flatten();
        parameters.into_iter().any(|parameter| matches!(parameter, RefOr::T(parameter) if parameter.parameter_in == place))
    };
    // `security(())` is a requirement too: the empty one, which everybody meets.
    let secured = operation.security.iter().flatten().any(|requirement| requirement != &SecurityRequirement::default());
    let mut failures = vec![&codes::MALFORMED_REQUEST, &codes::REQUEST_TIMEOUT, &codes::PAYLOAD_TOO_LARGE, &codes::URI_TOO_LONG];
    failures.extend([&codes::UNSUPPORTED_MEDIA_TYPE, &codes::HEADERS_TOO_LARGE, &codes::INTERNAL, &codes::DEADLINE_EXCEEDED]);
    if takes(ParameterIn::Path) {
        failures.push(&codes::INVALID_PATH);
    }
    if takes(ParameterIn::Query) {
        failures.push(&codes::INVALID_QUERY);
    }
    if operation.request_body.is_some() {
        failures.extend([&codes::INVALID_JSON, &codes::MISSING_BODY, &codes::VALIDATION_FAILED]);
    }
    if secured {
        failures.extend([&codes::AUTHENTICATION_REQUIRED, &codes::INVALID_TOKEN]);
        failures.push(if requires(operation, API_KEY) { &codes::INSUFFICIENT_SCOPE } else { &codes::PERSON_REQUIRED });
    }
    if !unlimited {
        failures.extend([&codes::RATE_LIMITED, &codes::OVERLOADED, &codes::DATABASE_UNAVAILABLE, &codes::DATABASE_TIMEOUT]);
        if !reads {
            failures.push(&codes::TRANSACTION_CONFLICT);
        }
    }
    failures
}

/// The headers that answers of every kind carry.
fn headers() -> impl Iterator<Item = (String, RefOr<Header>)> {
    let rows = [
        ("x-request-id", "The id under which the log knows this request", "0198c5c2e1f47c6f9d0a3b5e8f214a77", 128, "^[A-Za-z0-9._-]+$"),
        ("RateLimit", "What is left of the quota", r#""address";r=99;t=900"#, 100, r#"^"[a-z]+";r=[0-9]+;t=[0-9]+$"#),
        ("RateLimit-Policy", "The quota", r#""address";q=100;w=900"#, 100, r#"^"[a-z]+";q=[0-9]+;w=[0-9]+$"#),
        ("Access-Control-Allow-Origin", "For an allowed origin only: it, or `*`", "*", 2048, r"^(\*|https?://.+)$"),
        ("WWW-Authenticate", "How to authenticate", "Bearer", 200, "^Bearer"),
        ("Retry-After", "Seconds to wait before trying again", "1", 10, "^[0-9]+$"),
    ];
    rows.into_iter().map(|(name, description, example, most, pattern)| {
        let schema = ObjectBuilder::new().schema_type(Type::String).max_length(Some(most)).pattern(Some(pattern)).examples([json!(example)]);
        let mut header = Header::new(schema.build());
        header.description = Some(description.to_owned());
        (name.to_owned(), RefOr::T(header))
    })
}

/// Takes out the schemas that nothing refers to: types that stand inside an envelope are written out there.
fn drop_unused_schemas(document: &mut OpenApi) {
    loop {
        // A document made of our own types always serialises.
        let text = document.to_json().unwrap_or_default();
        let Some(components) = document.components.as_mut() else { return };
        let before = components.schemas.len();
        components.schemas.retain(|name, _| text.contains(&format!("#/components/schemas/{name}\"")));
        if components.schemas.len() == before {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
