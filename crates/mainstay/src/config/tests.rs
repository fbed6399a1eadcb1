//! The settings as a user meets them.

use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;

fn read(pairs: &[(&str, &str)]) -> Result<Settings, Problems> {
    let mut reader = Reader::from_pairs(pairs.iter().copied());
    let settings = Settings::read(&mut reader);
    reader.finish().map(|_| settings)
}

fn problems(pairs: &[(&str, &str)]) -> String {
    read(pairs).expect_err("these settings are wrong").to_string()
}

#[test]
fn nothing_set_is_development_on_the_embedded_database() {
    let settings = read(&[]).unwrap();
    assert_eq!(settings.app_env, AppEnv::Development);
    assert_eq!((settings.port, settings.rate_limit_max, settings.db_pool_max, settings.db_pool_min), (3000, 10_000, 20, 5));
    assert_eq!(settings.body_limit, ByteSize(1_048_576));
    assert_eq!(settings.database_url.expose_secret(), "sqlite:data/mainstay.db");
    assert!(settings.allowed_origins.any && !settings.cors_credentials);
}

#[test]
fn production_wants_a_secret_or_keys_and_tightens_the_limits() {
    assert!(problems(&[("APP_ENV", "production")]).contains("JWT_SECRET or JWT_KEYS_DIR is required"));
    assert!(read(&[("APP_ENV", "production"), ("JWT_KEYS_DIR", "keys")]).unwrap().token_keys.secret.is_none());
    let settings = read(&[("APP_ENV", "production"), ("JWT_SECRET", "0123456789abcdef0123456789abcdef")]).unwrap();
    assert_eq!((settings.rate_limit_max, settings.rate_limit_account_max), (100, 1_000));
    assert!(!settings.allowed_origins.any && settings.allowed_origins.list.is_empty());
    assert_eq!(settings.log_format, LogFormat::Json);
}

#[test]
fn every_problem_is_told_at_once_and_no_secret_with_it() {
    let told = problems(&[
        ("PORT", "http"),
        ("DB_POOL_MAX", "0"),
        ("REQUEST_TIMEOUT", "30"),
        ("JWT_SECRET", "hunter2"),
        ("TRUSTED_PROXIES", "10.0.0.0/8,cloud"),
    ]);
    for name in [
        "PORT is `http`",
        "DB_POOL_MAX is 0; allowed: 1 to 10000",
        "REQUEST_TIMEOUT is `30`",
        "JWT_SECRET has 7 bytes",
        "TRUSTED_PROXIES has `cloud`",
    ] {
        assert!(told.contains(name), "{name} is missing in: {told}");
    }
    assert!(!told.contains("hunter2"));
}

#[test]
fn any_origin_with_credentials_is_refused() {
    assert!(problems(&[("ALLOWED_ORIGINS", "*"), ("CORS_CREDENTIALS", "true")]).contains("browsers refuse"));
    assert!(problems(&[("ALLOWED_ORIGINS", "*,https://a.example")]).contains("beside other origins"));
    for wrong in ["https://a.example/", "a.example", "https://a.example/path", "https://*.example.com", "https://user@a.example"] {
        assert!(problems(&[("ALLOWED_ORIGINS", wrong)]).contains("ALLOWED_ORIGINS has"), "{wrong}");
    }
    assert!(read(&[("ALLOWED_ORIGINS", "https://a.example,http://localhost:5173")]).unwrap().cors_credentials);
}

#[test]
fn the_parts_of_a_database_url_are_put_together_and_escaped() {
    let settings = read(&[("DB_HOST", "db"), ("DB_USER", "a@b"), ("DB_PASSWORD", "p/w:d"), ("DB_NAME", "shop")]).unwrap();
    assert_eq!(settings.database_url.expose_secret(), "postgres://a%40b:p%2Fw%3Ad@db:5432/shop");
    assert!(problems(&[("DB_HOST", "db"), ("DATABASE_URL", "sqlite:x.db")]).contains("set one of them"));
    assert!(problems(&[("DATABASE_URL", "mysql://x")]).contains("DATABASE_URL must begin"));
}

#[test]
fn replicas_are_listed_with_commas_and_need_a_primary_that_has_some() {
    let primary = ("DATABASE_URL", "postgres://u:hunter2@h/d");
    assert!(read(&[primary]).unwrap().database_replica_urls.is_empty());
    let two = read(&[primary, ("DATABASE_REPLICA_URL", "postgres://u:hunter2@a/d, postgresql://u:hunter2@b/d")]).unwrap();
    let urls: Vec<_> = two.database_replica_urls.iter().map(|url| url.expose_secret().to_owned()).collect();
    assert_eq!(
        (urls, two.replica_lag_max),
        (vec!["postgres://u:hunter2@a/d".to_owned(), "postgresql://u:hunter2@b/d".to_owned()], Duration::from_secs(2))
    );
    let nine = (0..9).map(|number| format!("postgres://r{number}/d")).collect::<Vec<_>>().join(",");
    for (wrong, words) in [
        ("sqlite:hunter2.db", "must be URLs that begin"),
        ("postgres://u:hunter2@a/d,", "must be URLs that begin"),
        ("postgres://u:hunter2@a/d,postgres://u:hunter2@a/d", "names a replica twice"),
        (nine.as_str(), "has 9 URLs"),
    ] {
        let told = problems(&[primary, ("DATABASE_REPLICA_URL", wrong)]);
        assert!(told.contains(&format!("DATABASE_REPLICA_URL {words}")) && !told.contains("hunter2"), "{told}");
    }
    assert!(problems(&[("DATABASE_REPLICA_URL", "postgres://a/d")]).contains("SQLite database, which has no replicas"));
}

#[test]
fn the_file_is_read_in_lower_case_and_the_environment_wins() {
    let mut reader = Reader::from_pairs([("PORT", "4000")]);
    reader.add_file("port = 5000\nrequest_timeout = \"5s\"\nallowed_origins = [\"https://a.example\", \"https://b.example\"]\ncolour = \"red\"");
    let settings = Settings::read(&mut reader);
    assert_eq!((settings.port, settings.request_timeout, settings.allowed_origins.list.len()), (4000, Duration::from_secs(5), 2));
    assert!(reader.finish().unwrap_err().to_string().contains("colour is no setting"));
}

#[test]
fn a_secret_cannot_be_printed() {
    let settings = read(&[("JWT_SECRET", "correct-horse-battery-staple-0001"), ("DATABASE_URL", "postgres://u:hunter2@h/d")]).unwrap();
    let printed = format!("{settings:?}");
    assert!(!printed.contains("correct-horse") && !printed.contains("hunter2"), "{printed}");
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(value in ".{0,60}") {
        for name in ["PORT", "HOST", "BODY_LIMIT", "REQUEST_TIMEOUT", "ALLOWED_ORIGINS", "TRUSTED_PROXIES", "DATABASE_URL", "LOG_LEVEL", "APP_ENV"] {
            drop(read(&[(name, value.as_str())]));
        }
        let mut reader = Reader::default();
        reader.add_file(&value);
        drop(reader.finish());
    }

    #[test]
    fn durations_and_sizes_survive_being_written(ms in 0u64..10_000_000_000, bytes in 0usize..1 << 40) {
        let duration = Duration::from_millis(ms);
        prop_assert_eq!(Duration::parse(&duration.written()).unwrap(), duration);
        prop_assert_eq!(ByteSize::parse(&ByteSize(bytes).written()).unwrap(), ByteSize(bytes));
    }
}
