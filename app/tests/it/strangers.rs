//! The document walked by a stranger, a user, an editor, and API keys of each scope: nobody gets further than a reviewer has written down.
//!
//! A route that is added without thinking of who may use it fails here: it is neither in `public.txt` nor in the tables below.

use std::collections::BTreeSet;
use std::sync::Arc;

use mainstay::auth::{Role, Scope};
use mainstay_app::api_keys::KEYS;
use ring::rand::SystemRandom;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api_keys::key;
use crate::client::{Answer, Client};
use crate::ground::{Account, Ground, PASSWORD, Service};

on_both! {
    what_is_public_is_what_a_reviewer_has_seen
    a_stranger_is_refused_wherever_the_document_asks_for_a_token
    a_user_and_an_editor_may_do_what_the_tables_say_and_no_more
    a_key_may_do_what_the_document_says_of_its_scope_and_no_more_than_its_account
    every_answer_has_a_status_that_the_document_declares
}

/// What a user may not do. Paths with an `{id}` mean somebody else's.
const REFUSED_TO_USERS: [&str; 13] = [
    "GET /api/audit",
    "GET /api/users",
    "POST /api/users",
    "GET /api/users/{id}",
    "PATCH /api/users/{id}",
    "DELETE /api/users/{id}",
    "DELETE /api/users/{id}/sessions",
    "DELETE /api/users/{id}/totp",
    "POST /api/products",
    "PUT /api/products/{id}",
    "PATCH /api/products/{id}",
    "DELETE /api/products/{id}",
    "POST /api/products/{id}/restore",
];

/// What an editor may not do.
const REFUSED_TO_EDITORS: [&str; 9] = [
    "GET /api/audit",
    "GET /api/users",
    "POST /api/users",
    "GET /api/users/{id}",
    "PATCH /api/users/{id}",
    "DELETE /api/users/{id}",
    "DELETE /api/users/{id}/sessions",
    "DELETE /api/users/{id}/totp",
    "POST /api/products/{id}/restore",
];

fn refused_to(role: Role) -> &'static [&'static str] {
    match role {
        Role::User => &REFUSED_TO_USERS,
        Role::Editor => &REFUSED_TO_EDITORS,
        Role::Admin => &[],
    }
}
/// What is refused to everybody who has not the password or the token that it asks for.
const NEEDS_A_SECRET: [&str; 6] = [
    "/api/auth/login",
    "/api/auth/refresh",
    "/api/auth/verify-email",
    "/api/auth/reset-password",
    "/api/auth/confirm-email",
    "/api/auth/refuse-email",
];

/// One operation of the document.
struct Operation {
    method: String,
    path: String,
    public: bool,
    /// The scope that lets an API key in, if any does.
    scope: Option<String>,
    has_query: bool,
    media_types: Vec<String>,
    body: Value,
    statuses: BTreeSet<u16>,
}

impl Operation {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Asks with a body that fits, of the thing with this id.
    async fn ask(&self, client: &Client, id: Uuid) -> Answer {
        let path = self.path.replace("{id}", &id.to_string());
        match self.media_types.first() {
            Some(media_type) => client.ask(&self.method, &path, &[("content-type", media_type)], self.fresh_body().to_string().as_bytes()).await,
            None => client.ask(&self.method, &path, &[], b"").await,
        }
    }

    /// With an address or a number of its own for every try: what is asked here is who may, not whether it is taken.
    fn fresh_body(&self) -> Value {
        let mut body = self.body.clone();
        if body.get("email").is_some() {
            body["email"] = json!(format!("{}@example.net", Uuid::new_v4().simple()));
        }
        if body.get("password").is_some() && body.get("token").is_none() {
            body["password"] = json!(PASSWORD);
        }
        if body.get("current_password").is_some() {
            body["current_password"] = json!(PASSWORD);
        }
        if body.get("sku").is_some() {
            body["sku"] = json!(Uuid::new_v4());
        }
        body
    }

    /// What it is about if it is about what is the caller's own: another session or key of his; else what [`Operation::target`] says.
    async fn target_of(&self, service: &Service, caller: &Account) -> Uuid {
        if self.path.starts_with("/api/auth/sessions/") {
            return service.signed_in(caller.id).await.session;
        }
        if self.path.starts_with("/api/auth/keys/") {
            return key(caller, &["read"]).await.0.parse().unwrap();
        }
        self.target(service).await
    }

    /// Something that the operation is about: an account of somebody else, or a product, both new.
    async fn target(&self, service: &Service) -> Uuid {
        if self.path.starts_with("/api/users") {
            return service.account(Role::User).await.id;
        }
        let editor = service.admin().await.client;
        let product = editor.post("/api/products", &json!({"name": "Target"})).await.expect(201).data();
        product["id"].as_str().unwrap().parse().unwrap()
    }
}

/// The document, as the running service gives it.
async fn operations(service: &Service) -> Vec<Operation> {
    let document = service.stranger().get("/openapi.json").await.expect(200).json();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in
            item.as_object().unwrap().iter().filter(|(method, _)| ["get", "post", "put", "patch", "delete"].contains(&method.as_str()))
        {
            let security = operation.get("security").or(document.get("security")).and_then(Value::as_array).cloned().unwrap_or_default();
            let content = operation["requestBody"]["content"].as_object().cloned().unwrap_or_default();
            operations.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                // One of the requirements is enough, and an empty one is met by nobody in particular (OpenAPI 3.1, 4.8.30).
                public: security.is_empty() || security.iter().any(|requirement| requirement.as_object().unwrap().is_empty()),
                scope: security.iter().find_map(|requirement| Some(requirement.get("api_key")?[0].as_str().unwrap().to_owned())),
                has_query: operation["parameters"].as_array().is_some_and(|parameters| parameters.iter().any(|parameter| parameter["in"] == "query")),
                body: content.values().next().map_or(Value::Null, |media| example(&document, &media["schema"])),
                media_types: content.keys().cloned().collect(),
                statuses: operation["responses"].as_object().unwrap().keys().map(|status| status.parse().unwrap()).collect(),
            });
        }
    }
    assert!(operations.len() > 15, "the document is there");
    operations
}

/// The example of a schema: what a reader of the documentation would send.
fn example(document: &Value, schema: &Value) -> Value {
    // A body that may be left out is the type or null.
    let schema = schema["oneOf"].get(0).unwrap_or(schema);
    let name = schema["$ref"].as_str().unwrap().rsplit_once('/').unwrap().1;
    let example = document["components"]["schemas"][name]["example"].clone();
    assert!(example.is_object(), "{name} has no example");
    example
}

async fn what_is_public_is_what_a_reviewer_has_seen(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let operations = operations(&service).await;
    let declared: BTreeSet<_> = operations.iter().filter(|operation| operation.public).map(Operation::name).collect();
    let lines = include_str!("public.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(declared, lines.map(str::to_owned).collect(), "app/tests/it/public.txt against the document");
    let live = operations.iter().find(|operation| operation.path == "/health/live").unwrap();
    assert!(live.statuses.is_disjoint(&BTreeSet::from([401, 403])), "what is public refuses nobody: {:?}", live.statuses);
    for operation in operations.iter().filter(|operation| operation.public) {
        let answer = operation.ask(&service.stranger(), operation.target(&service).await).await;
        let refused =
            answer.status == 403 || (answer.status == 401 && !["invalid_credentials", "invalid_refresh_token"].contains(&answer.code().as_str()));
        assert!(!refused && answer.status < 500, "{}: {} {}", operation.name(), answer.status, answer.text());
    }
}

async fn a_stranger_is_refused_wherever_the_document_asks_for_a_token(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let stranger = service.stranger();
    let token_of_nobody = service.app.auth.tokens().issue(Uuid::new_v4(), Uuid::new_v4(), Role::Admin, service.app.clock().now());
    let token_of_nobody = token_of_nobody.expose_secret().to_owned();
    let key_of_nobody = KEYS.make(&SystemRandom::new()).unwrap();
    for operation in operations(&service).await.iter().filter(|operation| !operation.public) {
        let target = operation.target(&service).await;
        for (client, code) in [
            (stranger.clone(), "authentication_required"),
            (stranger.with_token("nonsense"), "invalid_token"),
            (stranger.with_token(&token_of_nobody), "invalid_token"),
            (stranger.with_token(format!("{token_of_nobody}x")), "invalid_token"),
            (stranger.with_token(key_of_nobody.text().expose_secret()), "invalid_token"),
        ] {
            // Who is asking is asked first: a stranger learns nothing of ids and bodies.
            for id in [target, Uuid::new_v4()] {
                let answer = operation.ask(&client, id).await.expect(401);
                assert_eq!(answer.code(), code, "{}", operation.name());
                assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")), "{}: {answer:?}", operation.name());
            }
            if !operation.media_types.is_empty() {
                let path = operation.path.replace("{id}", &target.to_string());
                client.raw(&operation.method, &path, b"{").await.expect(401);
            }
        }
    }
}

async fn a_user_and_an_editor_may_do_what_the_tables_say_and_no_more(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let operations = operations(&service).await;
    let names: BTreeSet<_> = operations.iter().map(Operation::name).collect();
    for listed in REFUSED_TO_USERS.iter().chain(&REFUSED_TO_EDITORS) {
        assert!(names.contains(*listed), "{listed} is no operation any more");
    }
    for role in [Role::User, Role::Editor, Role::Admin] {
        for operation in &operations {
            // Of its own for each: some end it.
            let account = service.account(role).await;
            let target = operation.target_of(&service, &account).await;
            if operation.path.ends_with("/restore") {
                service.admin().await.client.delete(&format!("/api/products/{target}")).await.expect(204);
            }
            let answer = operation.ask(&account.client, target).await;
            if refused_to(role).contains(&operation.name().as_str()) {
                assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{role} {}", operation.name());
            } else {
                let passed = answer.status < 300 || NEEDS_A_SECRET.contains(&operation.path.as_str());
                // Whoever has none may ask for its change.
                let passed = passed || answer.code() == "second_factor_not_found";
                // The example is everybody's: what may be there once is there by then.
                let passed = passed || answer.status == 409;
                assert!(passed, "{role} {}: {} {}", operation.name(), answer.status, answer.text());
            }
        }
    }
}

async fn a_key_may_do_what_the_document_says_of_its_scope_and_no_more_than_its_account(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let operations = operations(&service).await;
    assert!(operations.iter().all(|operation| !operation.public || operation.scope.is_none()));
    for role in [Role::User, Role::Editor, Role::Admin] {
        let account = service.account(role).await;
        for scope in Scope::ALL.into_iter().filter(|scope| scope.role() <= role) {
            let (_, machine) = key(&account, &[scope.as_str()]).await;
            for operation in operations.iter().filter(|operation| !operation.public) {
                let name = format!("{role} with {scope}: {}", operation.name());
                let target = if operation.scope.as_deref() == Some(scope.as_str()) { operation.target(&service).await } else { account.id };
                if operation.path.ends_with("/restore") {
                    service.admin().await.client.delete(&format!("/api/products/{target}")).await;
                }
                let answer = operation.ask(&machine, target).await;
                let wanted = match operation.scope.as_deref() {
                    None => Some("person_required"),
                    Some(needed) if needed != scope.as_str() => Some("insufficient_scope"),
                    // An administrator's key that may only read sees what a user sees.
                    Some(_) => refused_to(scope.role()).contains(&operation.name().as_str()).then_some("forbidden"),
                };
                match wanted {
                    Some(code) => assert_eq!((answer.status, answer.code().as_str()), (403, code), "{name}"),
                    None => assert!(answer.status < 300 || answer.status == 409, "{name}: {} {}", answer.status, answer.text()),
                }
            }
        }
    }
}

async fn every_answer_has_a_status_that_the_document_declares(ground: Arc<Ground>) {
    let service = ground.start(&[]).await;
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(1 << 20));
    for operation in operations(&service).await {
        let admin = service.admin().await.client;
        let target = operation.target(&service).await;
        let path = operation.path.replace("{id}", &target.to_string());
        let mut answers = Vec::new();
        for client in [service.stranger(), service.account(Role::User).await.client, admin.clone(), admin.with_token("bent")] {
            answers.push(operation.ask(&client, target).await);
            answers.push(operation.ask(&client, Uuid::new_v4()).await);
        }
        if operation.path.contains("{id}") {
            answers.push(admin.ask(&operation.method, &operation.path.replace("{id}", "7"), &[], b"").await);
        }
        if operation.has_query {
            for query in ["?limit=0", "?cursor=bent", "?cursor=bent!", "?colour=red", "?limit=1&limit=2", "?%00=%00"] {
                answers.push(admin.get(&format!("{path}{query}")).await);
            }
        }
        if !operation.media_types.is_empty() {
            for body in ["", "{", "[]", "null", r#"{"name":7}"#, r#"{"colour":1}"#, &large] {
                answers.push(admin.raw(&operation.method, &path, body.as_bytes()).await);
            }
            answers.push(admin.ask(&operation.method, &path, &[("content-type", "text/plain")], b"{}").await);
            answers.push(admin.ask(&operation.method, &path, &[("content-type", "application/json"), ("content-encoding", "gzip")], b"{}").await);
        }
        answers.push(admin.ask(&operation.method, &format!("{path}?x={}", "y".repeat(9000)), &[], b"").await);
        for answer in answers {
            let (name, status) = (operation.name(), answer.status);
            assert!(operation.statuses.contains(&status), "{name}: {status} is not in the document: {}", answer.text());
            assert!(status < 500, "{name}: {}", answer.text());
            assert!(answer.header("x-request-id").is_some(), "{name}: {status} without an id");
            if status >= 400 {
                let body = answer.json();
                assert_eq!(body["status"], "error", "{name}: {body}");
                assert!(body["code"].is_string() && body["message"].is_string() && body["request_id"].is_string(), "{name}: {body}");
            }
        }
    }
}
