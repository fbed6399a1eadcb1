//! Somebody who asks once in a while: with a token, from an address.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{self, Answer};
use crate::target::PASSWORD;

/// Each request is asked on a connection of its own, so that none is lost to one that an instance closes.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    address: SocketAddr,
    fields: Vec<(&'static str, String)>,
}

impl Caller {
    /// A stranger to this instance.
    pub(crate) fn stranger(address: SocketAddr) -> Self {
        Self { address, fields: Vec::new() }
    }

    /// The same with a token.
    pub(crate) fn with(&self, token: &str) -> Self {
        let mut fields = self.fields.clone();
        fields.push(("authorization", format!("Bearer {token}")));
        Self { address: self.address, fields }
    }

    /// The same from a home of this address.
    pub(crate) fn from(&self, home: &str) -> Self {
        let mut fields = self.fields.clone();
        fields.push(("x-forwarded-for", home.to_owned()));
        Self { address: self.address, fields }
    }

    /// Asks.
    ///
    /// # Errors
    /// When there is no answer.
    pub(crate) async fn ask(&self, method: &str, target: &str, body: Option<&Value>) -> Result<Answer, String> {
        let fields: Vec<(&str, &str)> = self.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = body.map(Value::to_string).unwrap_or_default();
        client::ask(self.address, method, target, &fields, body.as_bytes()).await.map_err(|error| format!("{method} {target}: {error}"))
    }

    /// Reads.
    ///
    /// # Errors
    /// When there is no answer.
    pub(crate) async fn get(&self, target: &str) -> Result<Answer, String> {
        self.ask("GET", target, None).await
    }

    /// Writes, which must succeed; the data of the answer.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) async fn write(&self, method: &str, target: &str, body: &Value) -> Result<Value, String> {
        let answer = self.ask(method, target, Some(body)).await?;
        if !matches!(answer.status, 200..=299) {
            return Err(format!("{method} {target}: {}", answer.said()));
        }
        Ok(answer.json()["data"].take())
    }

    /// Opens an account; its id.
    ///
    /// # Errors
    /// When it is not opened.
    pub(crate) async fn register(&self, email: &str) -> Result<String, String> {
        let account = self.write("POST", "/api/auth/register", &registration(email)).await?;
        Ok(text(&account, "id"))
    }

    /// Signs in; the tokens.
    ///
    /// # Errors
    /// When it does not succeed.
    pub(crate) async fn sign_in(&self, email: &str) -> Result<Value, String> {
        self.write("POST", "/api/auth/login", &json!({"email": email, "password": PASSWORD})).await
    }

    /// Makes a product; its path.
    ///
    /// # Errors
    /// When it is not made.
    pub(crate) async fn product(&self) -> Result<String, String> {
        let body = json!({"name": "Drilled", "description": "A product that everybody reads. ".repeat(30)});
        let made = self.ask("POST", "/api/products", Some(&body)).await?;
        made.field("location").map(str::to_owned).ok_or_else(|| format!("no product: {}", made.said()))
    }
}

/// The body that opens an account.
pub(crate) fn registration(email: &str) -> Value {
    json!({"email": email, "name": "Somebody", "password": PASSWORD})
}

/// A text of an answer.
pub(crate) fn text(data: &Value, name: &str) -> String {
    data[name].as_str().unwrap_or_default().to_owned()
}

/// Asks again and again until it holds; how long that took, and nothing if it did not by the deadline.
pub(crate) async fn until(deadline: Duration, mut holds: impl AsyncFnMut() -> bool) -> Option<Duration> {
    let begun = Instant::now();
    loop {
        if holds().await {
            return Some(begun.elapsed());
        }
        if begun.elapsed() > deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
