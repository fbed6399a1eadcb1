//! Where Redis is, who we are there, and whom we believe to be it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret, SecretString};

const FORM: &str = "must be `redis://host:port` or, with TLS, `rediss://host:port`, with `user:password@` before the host if it is needed (`%40` for `@` in them, and so for `/`, `#`, `?`, `%` and `,`); several nodes of a cluster stand with commas between them";

/// Files that TLS to Redis needs beside the authorities that the system trusts.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// Certificates of the only authorities that are believed, in place of the system's.
    pub authorities: Option<PathBuf>,
    /// The certificate that we show, with those between it and its authority.
    pub certificate: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

/// What cannot be used: which setting, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// `REDIS_URL`, `REDIS_CA_FILE`, `REDIS_CERT_FILE` or `REDIS_KEY_FILE`.
    pub setting: &'static str,
    /// What is wrong.
    pub words: String,
}

fn unusable(setting: &'static str, words: impl Into<String>) -> Unusable {
    Unusable { setting, words: words.into() }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.setting, self.words)
    }
}

impl std::error::Error for Unusable {}

/// A host and its port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

/// A Redis, or some nodes of a cluster, and how they are spoken to.
#[derive(Clone)]
pub struct Address {
    /// More than one: nodes of a cluster.
    pub(super) places: Vec<Place>,
    pub(super) account: RedisConnectionInfo,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Address {
    /// Reads an address, or several of a cluster with commas between them, and the files of TLS.
    ///
    /// # Errors
    /// What cannot be used. Nothing of the address stands in it: it holds a password.
    pub fn new(url: &SecretString, files: &TlsFiles) -> Result<Self, Unusable> {
        let refuse = |words| unusable("REDIS_URL", words);
        let nodes: Vec<&str> = url.expose_secret().split(',').map(str::trim).collect();
        let with_tls = nodes[0].starts_with("rediss://");
        let mut places = Vec::with_capacity(nodes.len());
        let mut account: Option<RedisConnectionInfo> = None;
        for node in &nodes {
            // The library would take `#insecure` for leave to believe anybody, and settings of its own behind a `?`.
            if node.contains(['#', '?']) {
                return Err(refuse(
                    "must have no `#` and no `?` behind the address: verification cannot be switched off, and nothing is set there. In a password they are written `%23` and `%3F`",
                ));
            }
            let (tls, rest) = match (node.strip_prefix("rediss://"), node.strip_prefix("redis://")) {
                (Some(rest), _) => (true, rest),
                (None, Some(rest)) => (false, rest),
                (None, None) => return Err(refuse(FORM)),
            };
            if tls != with_tls {
                return Err(refuse("must have TLS for all nodes of a cluster, or for none"));
            }
            // The library's own words may hold the password.
            let read = format!("redis://{rest}").into_connection_info().map_err(|_| refuse(FORM))?;
            let ConnectionAddr::Tcp(host, port) = read.addr() else { return Err(refuse(FORM)) };
            places.push(Place { host: host.clone(), port: *port });
            let known = account.get_or_insert_with(|| read.redis_settings().clone());
            let same = known.username() == read.redis_settings().username() && known.password() == read.redis_settings().password();
            if !same || nodes.len() > 1 && read.redis_settings().db() != 0 {
                return Err(refuse("must have the same user and password for all nodes of a cluster, and no number of a database"));
            }
        }
        let account = account.ok_or_else(|| refuse(FORM))?;
        Ok(Self { places, account, tls: tls(with_tls, files)? })
    }

    /// Is it several nodes of a cluster?
    pub(super) fn is_cluster(&self) -> bool {
        self.places.len() > 1
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The account has a password.
        f.debug_struct("Address").field("places", &self.places).field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

/// Made once: reading what the system trusts takes longer than connecting.
fn tls(wanted: bool, files: &TlsFiles) -> Result<Option<Arc<ClientConfig>>, Unusable> {
    let TlsFiles { authorities, certificate, key } = files;
    if !wanted {
        let set = [("REDIS_CA_FILE", authorities), ("REDIS_CERT_FILE", certificate), ("REDIS_KEY_FILE", key)];
        return match set.into_iter().find(|(_, file)| file.is_some()) {
            // Somebody believes that there is TLS.
            Some((setting, _)) => Err(unusable(setting, "stands beside a REDIS_URL without TLS, which begins with `rediss://`")),
            None => Ok(None),
        };
    }
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(file) => {
            for authority in certificates("REDIS_CA_FILE", file)? {
                roots.add(authority).map_err(|error| unusable("REDIS_CA_FILE", format!("has a certificate that cannot be used: {error}")))?;
            }
        }
        // What of it cannot be read is left out: a server that it would have vouched for is refused with words.
        None => _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| unusable("REDIS_URL", format!("cannot be spoken to with TLS: {error}")))?.with_root_certificates(roots);
    let config = match (certificate, key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let chain = certificates("REDIS_CERT_FILE", certificate)?;
            let words = |error: &dyn fmt::Display| unusable("REDIS_KEY_FILE", format!("cannot be used: {error}"));
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| words(&error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| words(&error))?
        }
        (Some(_), None) => return Err(unusable("REDIS_KEY_FILE", "is needed beside REDIS_CERT_FILE")),
        (None, Some(_)) => return Err(unusable("REDIS_CERT_FILE", "is needed beside REDIS_KEY_FILE")),
    };
    Ok(Some(Arc::new(config)))
}

fn certificates(setting: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Unusable> {
    let words = |error: &dyn fmt::Display| unusable(setting, format!("cannot be read: {error}"));
    let all = CertificateDer::pem_file_iter(file).map_err(|error| words(&error))?;
    let all = all.collect::<Result<Vec<_>, _>>().map_err(|error| words(&error))?;
    if all.is_empty() { Err(unusable(setting, "has no certificate: it must be PEM")) } else { Ok(all) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<Address, Unusable> {
        Address::new(&SecretString::from(url.to_owned()), &TlsFiles::default())
    }

    #[test]
    fn addresses_of_one_server_and_of_a_cluster_are_known_and_others_are_not() {
        for url in [
            "redis://127.0.0.1:6379",
            "redis://:secret@redis.internal/1",
            "rediss://user:secret@redis.internal:6380",
            "redis://a:1,redis://b:2, redis://c:3",
            "rediss://u:p@a:1,rediss://u:p@b:2",
            "redis://[::1]:6379",
        ] {
            assert!(read(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "127.0.0.1:6379",
            "http://redis",
            "redis://",
            "redis://a:1,b:2",
            "redis://a:port",
            "unix:///tmp/redis",
            "rediss://redis.internal#insecure",
            "rediss://redis.internal/?protocol=resp3",
            "rediss://a:1,redis://b:2",
            "redis://u:one@a:1,redis://u:two@b:2",
            "redis://a:1/1,redis://b:2/1",
        ] {
            let refused = read(url).expect_err(url);
            assert!(!refused.words.contains("secret") && refused.setting == "REDIS_URL", "{refused}");
        }
    }

    #[test]
    fn a_password_is_read_as_it_was_meant_and_shown_to_nobody() {
        let address = read("redis://some%20one:p%40ss%2Fw%3Ar%25d%2C%23@host:1").unwrap();
        assert_eq!((address.account.username(), address.account.password()), (Some("some one"), Some("p@ss/w:r%d,#")));
        assert!(!format!("{address:?}").contains("ss/w"), "{address:?}");
        let refused = read("redis://user:p@ss#word@host").unwrap_err();
        assert!(!refused.to_string().contains("word@"), "{refused}");
    }

    #[test]
    fn files_that_cannot_be_used_are_named_with_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "no certificate").unwrap();
        let missing = folder.path().join("missing.pem");
        let wrong = |url: &str, files: TlsFiles| Address::new(&SecretString::from(url.to_owned()), &files).unwrap_err();
        let authorities = |file: &Path| TlsFiles { authorities: Some(file.to_owned()), ..TlsFiles::default() };
        assert_eq!(wrong("rediss://a", authorities(&empty)).words, "has no certificate: it must be PEM");
        assert!(wrong("rediss://a", authorities(&missing)).words.starts_with("cannot be read"), "{:?}", wrong("rediss://a", authorities(&missing)));
        assert_eq!(wrong("redis://a", authorities(&empty)).setting, "REDIS_CA_FILE");
        let only = TlsFiles { certificate: Some(empty), ..TlsFiles::default() };
        assert_eq!(wrong("rediss://a", only).setting, "REDIS_KEY_FILE");
    }
}
