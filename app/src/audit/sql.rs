//! The SQL of the audit trail.

use jiff::Timestamp;
use mainstay::error::Result;
use mainstay::store::{Row, Session, query};
use uuid::Uuid;

use super::{AuditEntry, Entry};

/// Entries that one transaction of a sweep deletes at most: a few milliseconds of work, so nobody waits for it.
pub(super) const SWEEP_MAX: i64 = 500;

/// Which entries are asked for.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) actor: Option<Uuid>,
    pub(super) subject: Option<Uuid>,
    pub(super) action: Option<String>,
}

pub(super) async fn insert(session: &mut Session, entry: &Entry, request: Option<String>, now: Timestamp) -> Result<()> {
    let text = "INSERT INTO audit (at, actor_kind, actor, action, subject, address, user_agent, request_id, detail) \
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let device = entry.device.as_ref();
    let insert = query(text).bind(now).bind(entry.actor_kind()).bind(entry.actor_account()).bind(entry.action_name()).bind(entry.subject);
    let insert = insert.bind(device.map(|device| device.address.to_string())).bind(device.and_then(|device| device.user_agent.clone()));
    insert.bind(request).bind(&entry.detail).execute(session).await?;
    Ok(())
}

/// Entries before this one, newest first.
pub(super) async fn page(session: &mut Session, filter: &Filter, before: Option<i64>, limit: i64) -> Result<Vec<AuditEntry>> {
    let mut values = vec![limit.into()];
    let mut conditions = String::new();
    // The text is made of these constants only.
    let mut demand = |condition: &str, value: Option<mainstay::store::Value>| {
        if let Some(value) = value {
            values.push(value);
            let word = if conditions.is_empty() { "WHERE" } else { " AND" };
            conditions += &format!("{word} {condition} ${}", values.len());
        }
    };
    demand("actor =", filter.actor.map(Into::into));
    demand("subject =", filter.subject.map(Into::into));
    demand("action =", filter.action.clone().map(Into::into));
    demand("id <", before.map(Into::into));
    let text = format!(
        "SELECT id, at, actor_kind, actor, action, subject, address, user_agent, request_id, detail FROM audit {conditions} ORDER BY id DESC LIMIT $1"
    );
    query(text).bind_all(values).fetch_all(session).await?.iter().map(entry).collect()
}

fn entry(row: &Row) -> Result<AuditEntry> {
    Ok(AuditEntry {
        id: row.get("id")?,
        at: row.get("at")?,
        actor_kind: row.get("actor_kind")?,
        actor: row.get("actor")?,
        action: row.get("action")?,
        subject: row.get("subject")?,
        address: row.get("address")?,
        user_agent: row.get("user_agent")?,
        request_id: row.get("request_id")?,
        detail: row.get("detail")?,
    })
}

/// Deletes entries from before `horizon`, [`SWEEP_MAX`] at most. How many? The horizon is moved first: the triggers let go of nothing that is younger.
pub(super) async fn sweep(session: &mut Session, horizon: Timestamp) -> Result<u64> {
    // An instance that is a little behind does not move it back.
    query("UPDATE audit_horizon SET before = $1 WHERE before < $1").bind(horizon).execute(session).await?;
    let text = session.dialect().sql(
        "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)",
        "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < $1 ORDER BY at LIMIT $2)",
    );
    Ok(query(text).bind(horizon).bind(SWEEP_MAX).execute(session).await?)
}
