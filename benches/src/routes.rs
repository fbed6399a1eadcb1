//! The routes of the benchmark: a small answer, a big one, a body that comes back, and a read from PostgreSQL.
//!
//! No middleware stands here; that is what the peers differ in. Bare axum reads bodies and paths with axum's extractors,
//! Mainstay with its own, as a service on it does; what is checked and what is answered is the same code.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::catalogue::{self, BigItem, SmallItem};
use crate::database::{Database, Product};

/// The form of a successful answer.
#[derive(Serialize)]
pub struct Answer<T> {
    status: &'static str,
    data: T,
}

/// Wraps what was asked for.
pub fn success<T>(data: T) -> Json<Answer<T>> {
    Json(Answer { status: "success", data })
}

/// An order as a client sends it; [`Order::refused_field`] checks its limits.
#[derive(Deserialize, Serialize)]
pub struct Order {
    email: String,
    sku: String,
    quantity: u32,
    price: String,
    note: String,
    tags: Vec<String>,
}

/// A request that a handler refuses: the status and the words for the client.
pub struct Refused(StatusCode, &'static str);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            status: &'static str,
            message: &'static str,
        }
        (self.0, Json(Body { status: "error", message: self.1 })).into_response()
    }
}

/// The routes that read nothing of the request: the same in both axum peers.
pub fn open() -> Router {
    Router::new().route("/api/small", get(small)).route("/api/big", get(big))
}

/// All routes with axum's own extractors: the bare peer. Without a database the product route is left out.
pub fn all(database: Option<Database>) -> Router {
    let open = open().route("/api/echo", post(echo));
    match database {
        Some(database) => open.merge(Router::new().route("/api/products/{id}", get(product)).with_state(database)),
        None => open,
    }
}

/// `GET /api/small`: about 120 bytes.
async fn small() -> Json<Answer<SmallItem>> {
    success(catalogue::small())
}

/// `GET /api/big`: about 20 KB, made and serialised anew for each request.
async fn big() -> Json<Answer<Vec<BigItem>>> {
    success(catalogue::big())
}

/// `POST /api/echo`: parsed, validated, sent back.
async fn echo(Json(order): Json<Order>) -> Result<Json<Answer<Order>>, Refused> {
    match order.refused_field() {
        Some(field) => Err(Refused(StatusCode::BAD_REQUEST, field)),
        None => Ok(success(order)),
    }
}

impl Order {
    /// The first field outside its limits; the limits are those of `express/server.js`.
    #[must_use]
    pub fn refused_field(&self) -> Option<&'static str> {
        let within = |text: &str, least: usize, most: usize| (least..=most).contains(&text.chars().count());
        let email = within(&self.email, 3, 254) && self.email.find('@').is_some_and(|at| at > 0);
        let price = within(&self.price, 1, 20) && self.price.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let tags = self.tags.len() <= 10 && self.tags.iter().all(|tag| within(tag, 1, 32));
        let fields = [
            (email, "email"),
            (within(&self.sku, 1, 64), "sku"),
            ((1..=1000).contains(&self.quantity), "quantity"),
            (price, "price"),
            (within(&self.note, 0, 500), "note"),
            (tags, "tags"),
        ];
        fields.into_iter().find_map(|(valid, field)| (!valid).then_some(field))
    }
}

/// `GET /api/products/{id}`: one row by its primary key.
async fn product(State(database): State<Database>, Path(id): Path<Uuid>) -> Result<Json<Answer<Product>>, Refused> {
    match database.product(id).await {
        Ok(Some(product)) => Ok(success(product)),
        Ok(None) => Err(Refused(StatusCode::NOT_FOUND, "Product not found")),
        Err(_) => Err(Refused(StatusCode::SERVICE_UNAVAILABLE, "The database does not answer")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        Order {
            email: "a@example.org".to_owned(),
            sku: "SKU-1".to_owned(),
            quantity: 1,
            price: "1.20".to_owned(),
            note: String::new(),
            tags: vec!["gift".to_owned()],
        }
    }

    #[test]
    fn an_order_within_its_limits_is_accepted() {
        assert_eq!(order().refused_field(), None);
    }

    #[test]
    fn an_order_names_the_field_outside_its_limits() {
        assert_eq!(Order { email: "nobody".to_owned(), ..order() }.refused_field(), Some("email"));
        assert_eq!(Order { quantity: 1001, ..order() }.refused_field(), Some("quantity"));
        assert_eq!(Order { price: "1,20".to_owned(), ..order() }.refused_field(), Some("price"));
        assert_eq!(Order { tags: vec![String::new()], ..order() }.refused_field(), Some("tags"));
    }
}
