//! A family of refresh tokens against a small model of it: every short order of what two clients do, and some long ones, on two instances where there can be two.

use std::sync::Arc;

use mainstay::auth::Role;
use mainstay_app::sessions::{self, RefreshToken};
use secrecy::ExposeSecret;
use uuid::Uuid;

use super::Time;
use crate::ground::{Ground, Service, device};

on_both! {
    every_order_of_two_clients_goes_as_the_model_says
}

/// What two clients with copies of one token do.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A client presents the newest token that it has, and gets the answer or does not.
    Present { client: usize, answer_lost: bool },
    /// Longer than the window.
    Wait,
}

const STEPS: [Step; 5] = [
    Step::Present { client: 0, answer_lost: false },
    Step::Present { client: 0, answer_lost: true },
    Step::Present { client: 1, answer_lost: false },
    Step::Present { client: 1, answer_lost: true },
    Step::Wait,
];

/// How a family should go: for each token when it was used. Its successor is the next one.
struct Model {
    alive: bool,
    used_at: Vec<Option<i64>>,
}

impl Model {
    /// The successor of this token, if there is to be an answer.
    fn present(&mut self, token: usize, now: i64) -> Option<usize> {
        match self.used_at[token] {
            _ if !self.alive => return None,
            None => {
                self.used_at[token] = Some(now);
                self.used_at.push(None);
            }
            Some(used_at) if now < used_at + 10 => {}
            Some(_) => self.alive = false,
        }
        self.alive.then_some(token + 1)
    }
}

async fn every_order_of_two_clients_goes_as_the_model_says(ground: Arc<Ground>) {
    let time = Time::new();
    let mut instances = vec![ground.start_at(time.clock(), &[]).await];
    if !ground.url.starts_with("sqlite") {
        let folder = ground.file("other").display().to_string();
        instances.push(ground.start_at(time.clock(), &[("DATA_DIR", &folder)]).await);
    }
    let account = instances[0].account(Role::User).await.id;
    let digit = |number: usize, place: u32| STEPS[number / STEPS.len().pow(place) % STEPS.len()];
    for number in 0..STEPS.len().pow(4) {
        run_order(&instances, account, &time, &(0..4).map(|place| digit(number, place)).collect::<Vec<_>>()).await;
    }
    // Longer ones are too many for all: some, the same in every run.
    let mut seed = 1_u64;
    for _ in 0..40 {
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize
        };
        // Waits are rarer here, or no family would live long.
        let steps: Vec<_> = (0..16).map(|_| STEPS[random() % if random() % 4 == 0 { 5 } else { 4 }]).collect();
        run_order(&instances, account, &time, &steps).await;
    }
}

async fn run_order(instances: &[Service], account: Uuid, time: &Time, steps: &[Step]) {
    let begun = sessions::open(&instances[0].app, account, None, device()).await.unwrap();
    let mut model = Model { alive: true, used_at: vec![None] };
    let (mut texts, mut has) = (vec![begun.refresh.text().expose_secret().to_owned()], [0, 0]);
    for step in steps {
        let Step::Present { client, answer_lost } = *step else {
            time.pass(11);
            continue;
        };
        let app = &instances[client % instances.len()].app;
        let given = sessions::exchange(app, RefreshToken::parse(&texts[has[client]]).unwrap(), device()).await;
        let expected = model.present(has[client], time.second());
        match (given, expected) {
            (Ok(grant), Some(successor)) => {
                let text = grant.refresh.text().expose_secret().to_owned();
                if successor == texts.len() {
                    assert!(!texts.contains(&text));
                    texts.push(text);
                } else {
                    assert_eq!(texts[successor], text, "one successor for each token: {steps:?}");
                }
                if !answer_lost {
                    has[client] = successor;
                }
            }
            (Err(error), None) => assert_eq!(error.code().name, "invalid_refresh_token", "{steps:?}"),
            (given, expected) => panic!("{steps:?}: {given:?} where the model says {expected:?}"),
        }
    }
    let count = |text: &'static str| {
        let app = &instances[0].app;
        async move {
            let query = mainstay::store::query(text).bind(begun.session);
            query.fetch_one(&mut app.read().await.unwrap()).await.unwrap().get::<i64>("n").unwrap()
        }
    };
    assert_eq!(count("SELECT count(*) AS n FROM refresh_tokens WHERE session_id = $1 AND used_at IS NULL").await, 1, "{steps:?}");
    let alive = count("SELECT count(*) AS n FROM sessions WHERE id = $1 AND revoked_at IS NULL").await == 1;
    assert_eq!(alive, model.alive, "{steps:?}");
}
