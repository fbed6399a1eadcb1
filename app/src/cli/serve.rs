//! `mainstay serve`.

use std::io::IsTerminal;
use std::time::Duration;

use mainstay::config::Birth;
use mainstay::error::{Error, codes};
use mainstay::handover::Inherited;
use mainstay::log::{self, Sink};
use mainstay::metrics::Metrics;
use secrecy::ExposeSecret;

use crate::life::{self, Addresses, End, MadeUp, Origin, Signals};
use crate::settings::Settings;

/// The last lines matter most; a terminal takes them in less.
const FLUSH: Duration = Duration::from_secs(2);

pub(super) fn run() -> u8 {
    let birth = Birth::of_this_process();
    // Before anything is opened: what was inherited is told by its number.
    match Inherited::take(&birth) {
        Ok(inherited) => super::with_settings(|settings| serve(settings, birth, inherited)),
        Err(refused) => {
            eprintln!("mainstay: {refused}");
            End::Misconfigured as u8
        }
    }
}

fn serve(settings: Settings, birth: Birth, inherited: Inherited) -> u8 {
    let stack = &settings.stack;
    let sink = match Sink::to(std::io::stdout(), stack.log_format) {
        Ok(sink) => sink,
        Err(error) => return super::failed(&error),
    };
    log::init(&sink, &stack.log_level);
    let metrics = Metrics::global();
    log_panics();
    let connections_max = match life::raise_descriptor_limit(stack) {
        Ok(connections_max) => connections_max,
        Err(error) => return super::failed(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return super::failed(&error),
    };
    let log = sink.clone();
    let outcome = runtime.block_on(async move {
        let production = settings.stack.production();
        let mut signals = Signals::new().map_err(|error| Error::new(&codes::INTERNAL).with_message("Signals cannot be heard").caused_by(error))?;
        let prepared = life::prepare_unless_called_off(settings, super::clock(), inherited.predecessor.as_ref(), &mut signals).await?;
        let Some(prepared) = prepared else { return Ok(End::Clean) };
        let made_up = MadeUp { admin: prepared.made_up_admin, sample: prepared.sample };
        let flush = log.clone();
        life::serve(prepared.app, log, metrics, Origin { birth, inherited, signals, connections_max }, move |addresses| {
            let Addresses { public, management, taken_over } = addresses;
            tracing::info!(%public, %management, taken_over, version = env!("CARGO_PKG_VERSION"), "serving");
            if !production && !taken_over {
                flush.flush(FLUSH);
                eprint!("{}", welcome(addresses, &made_up));
            }
        })
        .await
    });
    // What still runs after the drain, a blocking search say, is not waited for.
    runtime.shutdown_timeout(Duration::from_millis(500));
    let code = match outcome {
        Ok(end) => end as u8,
        Err(error) => super::failed(&error),
    };
    sink.flush(FLUSH);
    code
}

/// A panic is one log line with its place, not a few on standard error between the others.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let words = panic.payload_as_str().unwrap_or("without words");
        tracing::error!(place, words, "panic");
    }));
}

/// What a developer wants to know first.
fn welcome(addresses: Addresses, made_up: &MadeUp) -> String {
    let colour = std::io::stderr().is_terminal();
    let paint = |code: &str, text: &str| if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
    let Addresses { public, management, .. } = addresses;
    let line = |name: &str, value: &str| format!("  {}  {value}\n", paint("2", &format!("{name:<9}")));
    let mut text = format!("\n  {} {}\n\n", paint("1;36", "Mainstay"), paint("2", concat!(env!("CARGO_PKG_VERSION"), ", development")));
    text += &line("API", &paint("1", &format!("http://{public}")));
    text += &line("try", &format!("curl 'http://{public}/api/products/search?q=wireless+headphones'"));
    text += &line("docs", &format!("http://{public}/docs"));
    text += &line("operator", &format!("http://{management}/health  http://{management}/metrics"));
    text += &line("mails", "mainstay mail list; they are kept in a folder until SMTP_URL is set");
    if made_up.sample > 0 {
        text += &line("sample", &format!("{} products of a real catalogue were loaded", made_up.sample));
    }
    if let Some(admin) = &made_up.admin {
        text += &line("sign in", &format!("{}  {}", paint("1", &admin.email), paint("1", admin.password.expose_secret())));
        text += &line("", &paint("2", "this administrator was made up; the password is shown this once"));
    }
    text + &line("stop", "Ctrl-C") + "\n"
}
