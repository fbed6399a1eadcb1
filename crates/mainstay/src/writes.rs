//! Writes that have begun finish, whatever becomes of the client that asked for them.
//!
//! A handler hands its write to [`Writes::finish`]: it runs as a task of its own, so a client that leaves, or a deadline that passes, ends the
//! waiting and not the write. At shutdown [`Writes::drained`] waits for the ones still running.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::context;

/// Counts the writes in progress. Clones count together.
#[derive(Debug, Clone)]
pub struct Writes(Arc<watch::Sender<usize>>);

impl Default for Writes {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }
}

/// One write in progress; dropping it is its end, by a panic as well.
struct Begun(Writes);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

impl Writes {
    /// Runs `work` to its end and gives its outcome to whoever still waits.
    ///
    /// # Panics
    /// With the panic of `work`.
    pub async fn finish<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        match self.start(work).await {
            Ok(outcome) => outcome,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The task is aborted only when the runtime ends, and then nobody waits here any more.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// Runs `work` to its end, and nobody waits for it: whatever it takes, no answer takes longer.
    pub fn begin(&self, work: impl Future<Output = ()> + Send + 'static) {
        drop(self.start(work));
    }

    fn start<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.0.send_modify(|count| *count += 1);
        let begun = Begun(self.clone());
        let mut work = Box::pin(work);
        let request = context::current();
        tokio::spawn(async move {
            let _begun = begun;
            std::future::poll_fn(move |task| match &request {
                Some(request) => context::during(request, || work.as_mut().poll(task)),
                None => work.as_mut().poll(task),
            })
            .await
        })
    }

    /// How many are in progress.
    pub fn in_progress(&self) -> usize {
        *self.0.borrow()
    }

    /// Returns when none is in progress.
    pub async fn drained(&self) {
        // The sender lives in `self`, so the wait cannot end by its loss.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn a_write_outlives_the_one_who_asked_for_it() {
        let writes = Writes::default();
        let (go, wait) = oneshot::channel::<()>();
        let (done, finished) = oneshot::channel::<()>();
        let asked = tokio::spawn({
            let writes = writes.clone();
            async move {
                writes
                    .finish(async move {
                        wait.await.unwrap();
                        done.send(()).unwrap();
                    })
                    .await;
            }
        });
        while writes.in_progress() == 0 {
            tokio::task::yield_now().await;
        }
        asked.abort();
        assert!(asked.await.unwrap_err().is_cancelled());
        go.send(()).unwrap();
        finished.await.unwrap();
        writes.drained().await;
        assert_eq!(writes.in_progress(), 0);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_write_that_is_only_begun_but_the_end_of_the_process() {
        let writes = Writes::default();
        let (go, wait) = oneshot::channel::<()>();
        writes.begin(async move { wait.await.unwrap() });
        assert_eq!(writes.in_progress(), 1);
        go.send(()).unwrap();
        writes.drained().await;
    }

    #[tokio::test]
    async fn a_panic_reaches_the_one_who_waits_and_is_not_counted_for_ever() {
        let writes = Writes::default();
        let waiting = tokio::spawn({
            let writes = writes.clone();
            async move { writes.finish(async { panic!("no") }).await }
        });
        assert!(waiting.await.unwrap_err().is_panic());
        writes.drained().await;
    }
}
