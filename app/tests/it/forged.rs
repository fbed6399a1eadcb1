//! Tokens that are forged or bent, sent to the running service over HTTP: each is a 401 that asks for a token, is one line of the log, and leaves nothing of
//! itself there. For each kind of key: the shared secret, and both algorithms of the folder.
//!
//! Every row of the table is a token that is good but for one thing. That the forger signs as the service does is shown first, by one that is good.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use self::forge::{Forge, b64};
use crate::client::{Answer, Client};
use crate::ground::{Ground, JWT_SECRET, PASSWORD, within};
use crate::process::{self, Server};

mod forge;

on_both! {
    no_forged_token_passes_under_a_secret
    no_forged_token_passes_under_an_ed25519_key
    no_forged_token_passes_under_a_p256_key
}

async fn no_forged_token_passes_under_a_secret(ground: Arc<Ground>) {
    let forge = Forge::of_secret(JWT_SECRET.as_bytes());
    none_passes(&ground, forge, &[]).await;
}

async fn no_forged_token_passes_under_an_ed25519_key(ground: Arc<Ground>) {
    of_folder(&ground, "eddsa").await;
}

async fn no_forged_token_passes_under_a_p256_key(ground: Arc<Ground>) {
    of_folder(&ground, "es256").await;
}

async fn of_folder(ground: &Ground, algorithm: &str) {
    let folder = ground.file("keys");
    let shown = folder.display().to_string();
    let pairs = [("JWT_SECRET", ""), ("JWT_KEYS_DIR", shown.as_str())];
    let made = process::run(&ground.pairs(&pairs), &["keys", "new", "--algorithm", algorithm], b"");
    assert!(made.status.success(), "{made:?}");
    let kid = String::from_utf8(made.stdout).unwrap().split_whitespace().next().unwrap().to_owned();
    let file = std::fs::read_to_string(folder.join(format!("{kid}.pem"))).unwrap();
    none_passes(ground, Forge::of_file(&file, algorithm, &kid), &pairs).await;
}

/// Somebody who is signed in.
struct Person {
    id: Uuid,
    session: String,
    token: String,
    refresh_token: String,
}

async fn person(client: &Client, name: &str) -> Person {
    let email = format!("{name}@example.com");
    client.post("/api/auth/register", &json!({"email": email, "name": name, "password": PASSWORD})).await.expect(201);
    let signed = client.post("/api/auth/login", &json!({"email": email, "password": PASSWORD})).await.expect(200).data();
    let text = |name: &str| signed[name].as_str().unwrap().to_owned();
    let (token, refresh_token) = (text("access_token"), text("refresh_token"));
    Person {
        id: signed["user"]["id"].as_str().unwrap().parse().unwrap(),
        session: claims(&token)["sid"].as_str().unwrap().to_owned(),
        token,
        refresh_token,
    }
}

fn claims(token: &str) -> Map<String, Value> {
    serde_json::from_slice(&forge::unb64(token.split('.').nth(1).unwrap())).unwrap()
}

async fn none_passes(ground: &Ground, forge: Forge, pairs: &[(&str, &str)]) {
    let settings = ground.pairs(&[pairs, &[("LOG_FORMAT", "json"), ("LOG_LEVEL", "trace")]].concat());
    let server = Server::start(&settings);
    let client = server.client();
    let (ada, eve) = (person(&client, "ada").await, person(&client, "eve").await);
    let good = forge.sign(&forge.header(), &Value::from(claims(&ada.token)).to_string());
    ask(&client, &good).await.expect(200);
    assert_eq!(good.split('.').next(), ada.token.split('.').next(), "the forger writes headers as the service does");

    let ended = person(&client, "gone").await;
    client.with_token(ended.token.as_str()).post("/api/auth/logout", &json!({})).await.expect(204);
    let jwks = client.get("/.well-known/jwks.json").await.expect(200).json();
    let mut rows = bent_headers(&forge, &ada, &jwks);
    rows.extend(bent_claims(&forge, &ada, &eve));
    rows.extend(bent_text(&forge, &ada));
    rows.push(("an ended session", ended.token));
    rows.push(("a refresh token", ada.refresh_token.clone()));

    let mut ids = Vec::new();
    for (what, token) in &rows {
        let answer = ask(&client, token).await;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some(r#"Bearer error="invalid_token""#)), "{what}: {}", answer.text());
        assert_eq!(answer.code(), "invalid_token", "{what}");
        assert!(parts(token).all(|part| !answer.text().contains(part)), "{what}: {}", answer.text());
        ids.push((what, answer.json()["request_id"].as_str().unwrap().to_owned()));
    }
    // The good one is good to the end: none of these has cost its owner anything.
    ask(&client, &good).await.expect(200);
    let logged = || async { server.log().contains(ids.last().unwrap().1.as_str()) };
    within(Duration::from_secs(10), "the last one is logged", logged).await;
    let log = server.output();
    for (what, id) in ids {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&id) && line.contains(r#""message":"request""#)).collect();
        assert_eq!(lines.len(), 1, "{what}: {lines:?}");
        let line: Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!((&line["status"], &line["code"], &line["level"]), (&json!(401), &json!("invalid_token"), &json!("warn")), "{what}: {line}");
    }
    for (what, token) in rows.iter().chain([&("the good one", good), &("the owner's", ada.token), &("the other's", eve.token)]) {
        assert!(parts(token).all(|part| !log.contains(part)), "{what} is in the log");
    }
}

/// What would give a token away. Headers are no secret, and short texts stand everywhere.
fn parts(token: &str) -> impl Iterator<Item = &str> {
    token.split('.').skip(usize::from(token.contains('.'))).filter(|part| part.len() > 15)
}

async fn ask(client: &Client, token: &str) -> Answer {
    client.ask("GET", "/api/users/me", &[("authorization", &format!("Bearer {token}"))], b"").await
}

/// Good claims under a header that is not ours.
fn bent_headers(forge: &Forge, ada: &Person, jwks: &Value) -> Vec<(&'static str, String)> {
    let claims = Value::from(claims(&ada.token)).to_string();
    // Changed members stand where ours stand, so that the order is not what refuses them; others follow.
    let (ours, with) = (forge.header(), |changes: &[(&str, Value)]| forge.header_with(changes));
    let evil = Forge::stranger(forge);
    let signed = |header: &str| forge.sign(header, &claims);
    let unsigned = |alg: &str| format!("{}.{}.", b64(with(&[("alg", json!(alg))]).as_bytes()), b64(claims.as_bytes()));
    let mut rows = vec![
        ("none, unsigned", unsigned("none")),
        ("None, unsigned", unsigned("None")),
        ("nOnE, unsigned", unsigned("nOnE")),
        ("none, and signed", signed(&with(&[("alg", json!("none"))]))),
        ("no algorithm", signed(r#"{"typ":"at+jwt"}"#)),
        ("another algorithm of the family", signed(&with(&[("alg", json!("HS512"))]))),
        ("an algorithm of RSA", signed(&with(&[("alg", json!("RS256"))]))),
        ("the typ of an ID token", signed(&with(&[("typ", json!("JWT"))]))),
        ("the typ in other letters", signed(&with(&[("typ", json!("AT+JWT"))]))),
        ("no typ", signed(&ours.replace(r#","typ":"at+jwt""#, ""))),
        ("an extension that must be understood", signed(&with(&[("crit", json!(["exp"]))]))),
        ("an unencoded payload", signed(&with(&[("b64", json!(false)), ("crit", json!(["b64"]))]))),
        ("a key of its own", evil.sign(&with(&[("jwk", evil.jwk())]), &claims)),
        ("the address of a set of keys", evil.sign(&with(&[("jku", json!("http://127.0.0.1:9/jwks.json"))]), &claims)),
        ("the address of a certificate", evil.sign(&with(&[("x5u", json!("http://127.0.0.1:9/key.pem"))]), &claims)),
        ("a certificate", evil.sign(&with(&[("x5c", json!(["bWFya2Vk"]))]), &claims)),
        ("the algorithm twice", signed(&ours.replacen('{', r#"{"alg":"none","#, 1))),
        ("the members in another order", signed(&ours.replace(r#","typ":"at+jwt""#, "").replacen('{', r#"{"typ":"at+jwt","#, 1))),
        ("a space in the header", signed(&ours.replacen(':', ": ", 1))),
        ("a header that is no object", signed("[]")),
        ("another's key under our header", evil.sign(&ours, &claims)),
    ];
    for kid in ["../../../../../../dev/null", "/dev/null", "C:\\nul", "' UNION SELECT 'a", "a\u{0}b", "", "http://127.0.0.1:9/key.pem"] {
        rows.push(("a name of a key that is a path", Forge::of_secret(b"").sign(&with(&[("kid", json!(kid))]), &claims)));
        rows.push(("the same, signed with our key", signed(&with(&[("kid", json!(kid))]))));
    }
    rows.push(("a key that nobody knows", evil.sign(&with(&[("kid", json!("a-key-that-nobody-knows"))]), &claims)));
    // What everybody can read, taken for the secret.
    for key in jwks["keys"].as_array().unwrap() {
        for secret in [forge::unb64(key["x"].as_str().unwrap()), key["x"].as_str().unwrap().into(), key.to_string().into_bytes(), forge.public_pem()]
        {
            let confused = Forge::of_secret(&secret);
            rows.push(("a public key as the secret, as HS256", confused.sign(r#"{"alg":"HS256","typ":"at+jwt"}"#, &claims)));
            rows.push(("a public key as the secret, with its name", confused.sign(&with(&[("alg", json!("HS256"))]), &claims)));
            rows.push(("a public key as the secret, under its own header", confused.sign(&ours, &claims)));
        }
    }
    rows
}

/// Signed by our key, and says what it must not.
fn bent_claims(forge: &Forge, ada: &Person, eve: &Person) -> Vec<(&'static str, String)> {
    let now = Timestamp::now().as_second();
    let with = |name: &str, value: Value| {
        let mut claims = claims(&ada.token);
        match value {
            Value::Null => claims.remove(name),
            value => claims.insert(name.to_owned(), value),
        };
        forge.sign(&forge.header(), &Value::from(claims).to_string())
    };
    let raw = |claims: &str| forge.sign(&forge.header(), claims);
    let written = Value::from(claims(&ada.token)).to_string();
    let mut rows = vec![
        ("expired", with("exp", json!(now - 1))),
        ("an end before time began", with("exp", json!(i64::MIN))),
        ("an end as a text", with("exp", json!((now + 600).to_string()))),
        ("an end as a fraction", with("exp", json!(now as f64 + 600.5))),
        ("an end beyond all calendars", with("exp", json!(i64::MAX))),
        ("a start in the future", with("nbf", json!(now + 600))),
        ("issued in the future", with("iat", json!(now + 600))),
        ("another issuer", with("iss", json!("https://evil.example"))),
        ("our issuer in other letters", with("iss", json!("MAINSTAY"))),
        ("a list of issuers", with("iss", json!(["mainstay"]))),
        ("for another audience", with("aud", json!("another-service"))),
        ("for a list of audiences", with("aud", json!(["mainstay", "another-service"]))),
        ("an account that does not exist", with("sub", json!(Uuid::new_v4()))),
        ("another account with this session", with("sub", json!(eve.id))),
        ("the session of another account", with("sid", json!(eve.session))),
        ("a session that does not exist", with("sid", json!(Uuid::new_v4()))),
        ("an account that is a text", with("sub", json!("admin"))),
        ("an account that is a statement", with("sub", json!("' OR 1=1 --"))),
        ("a role that does not exist", with("role", json!("root"))),
        ("a role in other letters", with("role", json!("Admin"))),
        ("a list of roles", with("role", json!(["user", "admin"]))),
        ("the end twice", raw(&written.replacen('{', &format!(r#"{{"exp":{},"#, now + 600), 1))),
        ("the account twice", raw(&written.replacen('{', &format!(r#"{{"sub":"{}","#, eve.id), 1))),
        ("the role twice, spelled in two ways", raw(&written.replacen('{', r#"{"\u0072ole":"admin","#, 1))),
        ("a claim of others twice", raw(&written.replacen('{', r#"{"x":1,"x":2,"#, 1))),
        ("more after the claims", raw(&format!("{written}{{}}"))),
        ("claims that are a list", raw(&format!("[{written}]"))),
        ("claims that are cut", raw(&written[..written.len() - 1])),
        ("no claims", raw("{}")),
        ("nothing at all", raw("")),
        ("longer than any of ours", with("pad", json!("p".repeat(2048)))),
    ];
    for name in ["exp", "nbf", "iat", "iss", "aud", "sub", "sid", "jti", "role"] {
        rows.push(("a claim is missing", with(name, Value::Null)));
    }
    rows
}

/// A good token whose text was changed.
fn bent_text(forge: &Forge, ada: &Person) -> Vec<(&'static str, String)> {
    let [header, payload, signature] = ada.token.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let altered = |part: &str, at: usize| {
        let mut bytes = forge::unb64(part);
        let at = at % bytes.len();
        bytes[at] ^= 1;
        b64(&bytes)
    };
    let mut promoted = claims(&ada.token);
    promoted.insert("role".to_owned(), json!("admin"));
    let promoted = b64(Value::from(promoted).to_string().as_bytes());
    let mut rows = vec![
        ("more rights under the old signature", format!("{header}.{promoted}.{signature}")),
        ("the signature stripped", format!("{header}.{payload}.")),
        ("the signature and its dot stripped", format!("{header}.{payload}")),
        ("half of the signature", format!("{header}.{payload}.{}", &signature[..40])),
        ("a signature of nothing but zeros", format!("{header}.{payload}.{}", b64(&[0; 64]))),
        ("the signature of another token", format!("{header}.{payload}.{}", forge.sign(&forge.header(), "{}").rsplit('.').next().unwrap())),
        ("a fourth part", format!("{}.{signature}", ada.token)),
        ("five parts, as if encrypted", format!("{header}..{payload}.{signature}.{signature}")),
        ("padding", format!("{header}.{payload}.{signature}=")),
        ("a space inside", format!("{header}.{payload}. {signature}")),
        ("in quotes", format!("\"{}\"", ada.token)),
        ("twice", format!("{0},{0}", ada.token)),
        ("no header", format!(".{payload}.{signature}")),
        ("dots", "..".to_owned()),
        ("as JSON", json!({"payload": payload, "signatures": [{"protected": header, "signature": signature}]}).to_string()),
        ("a text", "marked-text-that-is-no-token-of-anybody".to_owned()),
    ];
    for at in [0, 7, 31, 63] {
        rows.push(("a bit of the signature", format!("{header}.{payload}.{}", altered(signature, at))));
        rows.push(("a bit of the claims", format!("{header}.{}.{signature}", altered(payload, at))));
    }
    rows
}
