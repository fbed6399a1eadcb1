//! What the completed document promises.

use super::*;
use serde_json::Value;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, Paths};
use utoipa::openapi::{InfoBuilder, OpenApiBuilder, ResponseBuilder};

static MISSING: Code = Code::new("thing_not_found", 404, "Thing not found");

fn completed(operation: OperationBuilder) -> Value {
    let mut paths = Paths::new();
    paths.add_path_operation("/things/{id}", vec![HttpMethod::Get], operation.build());
    let mut document = OpenApiBuilder::new().info(InfoBuilder::new().title("Things").version("1")).paths(paths).build();
    complete(&mut document, &[&MISSING]);
    serde_json::to_value(document).unwrap()
}

fn get(operation: OperationBuilder) -> Value {
    completed(operation)["paths"]["/things/{id}"]["get"]["responses"].clone()
}

fn statuses(responses: &Value) -> Vec<&str> {
    responses.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn an_open_operation_never_answers_401_and_a_secured_one_does() {
    let open = OperationBuilder::new().security(SecurityRequirement::default());
    let secured = OperationBuilder::new().security(SecurityRequirement::new(BEARER, Vec::<String>::new()));
    assert!(!statuses(&get(open)).contains(&"401"));
    assert!(statuses(&get(secured)).contains(&"401"));
}

#[test]
fn an_operation_says_whether_a_key_will_do_and_with_which_scope() {
    let by_session = SecurityRequirement::new(BEARER, Vec::<String>::new());
    let refusal = |document: &Value| {
        let reference = document["paths"]["/things/{id}"]["get"]["responses"]["403"]["$ref"].as_str().unwrap().to_owned();
        reference.rsplit_once('.').unwrap().1.to_owned()
    };
    let persons = completed(OperationBuilder::new().security(by_session.clone()));
    assert_eq!(refusal(&persons), "person_required");
    assert!(persons["components"]["securitySchemes"].get(API_KEY).is_none(), "no operation takes keys");
    let both = completed(OperationBuilder::new().security(by_session).security(SecurityRequirement::new(API_KEY, ["read"])));
    assert_eq!(refusal(&both), "insufficient_scope");
    assert_eq!(both["components"]["securitySchemes"][API_KEY]["scheme"], "bearer");
}

#[test]
fn health_is_never_refused_by_a_limit() {
    let responses = get(OperationBuilder::new().tag(UNLIMITED_TAG));
    assert!(!statuses(&responses).contains(&"429") && !statuses(&responses).contains(&"503"));
}

#[test]
fn a_code_that_the_handler_names_comes_with_an_example_in_both_forms() {
    let operation = OperationBuilder::new()
        .parameter(ParameterBuilder::new().name("id").parameter_in(ParameterIn::Path))
        .response("404", ResponseBuilder::new().description("thing_not_found"));
    let document = completed(operation);
    assert_eq!(document["paths"]["/things/{id}"]["get"]["responses"]["404"]["$ref"], "#/components/responses/404.thing_not_found");
    let content = &document["components"]["responses"]["404.thing_not_found"]["content"];
    for form in ["application/json", "application/problem+json"] {
        assert_eq!(content[form]["examples"]["thing_not_found"]["value"]["code"], "thing_not_found");
        let schema = content[form]["schema"]["$ref"].as_str().unwrap().rsplit_once('/').unwrap().1;
        assert_eq!(document["components"]["schemas"][schema]["allOf"][1]["properties"]["code"]["enum"], json!(["thing_not_found"]));
    }
    let bad = document["components"]["responses"].as_object().unwrap().keys().find(|name| name.starts_with("400.")).unwrap();
    assert!(bad.contains("invalid_path_parameter") && !bad.contains("invalid_query_parameter"), "{bad}");
}

#[test]
fn schemas_that_nothing_refers_to_are_left_out() {
    let document = completed(OperationBuilder::new());
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let text = document.to_string();
    assert!(schemas.contains_key("FieldError"));
    assert!(schemas.keys().all(|name| text.contains(&format!("#/components/schemas/{name}\""))));
}
