//! The drill of `sessions`: sign in on one instance, use on all, refresh on another, log out on a third. Valid everywhere, then nowhere.

use std::sync::Arc;

use serde_json::json;

use super::fleet::{Fleet, INSTANCES, access, admin, register, sign_in};
use crate::client::Client;
use crate::ground::{Ground, PASSWORD};

const ROUNDS: usize = 50;
/// Rounds of the other ways in which something ends.
const OTHER_ROUNDS: usize = 10;

/// One client of each instance with this token, its connection made: what is measured is the next request and nothing before it.
async fn everywhere(fleet: &Fleet, token: &str) -> Vec<Client> {
    let clients: Vec<_> = fleet.clients().iter().map(|client| client.with_token(token)).collect();
    for (number, client) in clients.iter().enumerate() {
        let answer = client.get("/api/users/me").await;
        assert_eq!(answer.status, 200, "instance {number} does not know what another one gave: {}", answer.text());
    }
    clients
}

/// Asks all of them at once, and notes who does not refuse.
async fn refused(clients: &[Client], place: &str, believed: &mut Vec<String>) {
    let answers = futures_util::future::join_all(clients.iter().map(|client| client.get("/api/users/me"))).await;
    for (number, answer) in answers.iter().enumerate().filter(|(_, answer)| answer.status != 401) {
        believed.push(format!("{place}: instance {number} says {}", answer.status));
    }
}

pub(super) async fn what_ends_on_one_instance_is_refused_by_the_others_from_the_next_request_on(ground: Arc<Ground>) {
    let fleet = Fleet::start(&ground, &[]).await;
    register(&fleet.client(0), "session@example.com").await;
    let mut believed = Vec::new();
    for round in 0..ROUNDS {
        let at = |step: usize| fleet.client(round + step);
        let signed = sign_in(&at(0), "session@example.com", PASSWORD).await;
        let first = everywhere(&fleet, access(&signed)).await;
        let refreshed = at(1).post("/api/auth/refresh", &json!({"refresh_token": signed["refresh_token"]})).await.expect(200).data();
        let second = everywhere(&fleet, access(&refreshed)).await;
        second[(round + 2) % INSTANCES].ask("POST", "/api/auth/logout", &[], b"").await.expect(204);
        // Of one session there are two access tokens now, and both end with it.
        refused(&[second, first].concat(), &format!("round {round}"), &mut believed).await;
        at(0).post("/api/auth/refresh", &json!({"refresh_token": refreshed["refresh_token"]})).await.expect(401);
    }
    assert!(believed.is_empty(), "{} of {} requests after a log-out: {believed:?}", believed.len(), ROUNDS * INSTANCES * 2);
}

pub(super) async fn a_disabled_account_and_a_changed_password_end_everywhere_at_once(ground: Arc<Ground>) {
    let fleet = Fleet::start(&ground, &[]).await;
    let admin = admin(&fleet.client(0)).await;
    let mut believed = Vec::new();
    for round in 0..OTHER_ROUNDS {
        let (one, other) = (fleet.client(round), fleet.client(round + 1));
        let email = format!("ends-{round}@example.com");
        let id = register(&one, &email).await;
        let (lost, kept) = (sign_in(&one, &email, PASSWORD).await, sign_in(&other, &email, PASSWORD).await);
        let (lost, kept) = (everywhere(&fleet, access(&lost)).await, everywhere(&fleet, access(&kept)).await);
        let change = json!({"current_password": PASSWORD, "new_password": "another horse, another battery"});
        kept[(round + 2) % INSTANCES].post("/api/auth/change-password", &change).await.expect(204);
        refused(&lost, &format!("password {round}"), &mut believed).await;
        for client in &kept {
            client.get("/api/users/me").await.expect(200);
        }
        admin.patch(&format!("/api/users/{id}"), &json!({"disabled": true})).await.expect(200);
        refused(&kept, &format!("disabled {round}"), &mut believed).await;
    }
    assert!(believed.is_empty(), "{} of {} requests: {believed:?}", believed.len(), OTHER_ROUNDS * INSTANCES * 2);
}
