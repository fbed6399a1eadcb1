//! The kinds of values that settings have, and how each is written.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use secrecy::SecretString;

use super::{AppEnv, ContentPolicy, LogFormat, Pooler};

/// A kind of value: how it is read from text and written back.
pub trait Setting: Sized {
    /// The kind in a word, for the reference.
    const KIND: &'static str;
    /// Does an empty text mean something, or that nothing was set?
    const EMPTY_IS_A_VALUE: bool = false;

    /// # Errors
    /// What is wrong, in words that follow the setting's name. The words never hold the text of a secret.
    fn parse(text: &str) -> Result<Self, String>;

    /// As a user would write it; a secret only says that it is set.
    fn written(&self) -> String;

    /// The value when nothing is set and there is no default.
    fn absent() -> Option<Self> {
        None
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub usize);

/// Origins that may call, or any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins {
    /// `*` stands in the list.
    pub any: bool,
    /// The origins, as browsers send them.
    pub list: Vec<String>,
}

macro_rules! setting_from_str {
    ($($type:ty = $kind:literal, $what:literal;)*) => {$(
        impl Setting for $type {
            const KIND: &'static str = $kind;
            fn parse(text: &str) -> Result<Self, String> {
                text.parse().map_err(|_| format!(concat!("is `{}`; it must be ", $what), text))
            }
            fn written(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

setting_from_str! {
    u16 = "number", "a whole number from 0 to 65535";
    u32 = "number", "a whole number";
    usize = "number", "a whole number";
    IpAddr = "address", "an IP address such as `127.0.0.1` or `::`";
    SocketAddr = "address:port", "an address with a port such as `127.0.0.1:3001`";
    String = "text", "a text";
}

impl Setting for bool {
    const KIND: &'static str = "true/false";
    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err(format!("is `{text}`; it must be `true` or `false`")),
        }
    }
    fn written(&self) -> String {
        self.to_string()
    }
}

impl Setting for PathBuf {
    const KIND: &'static str = "path";
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self::from(text))
    }
    fn written(&self) -> String {
        self.display().to_string()
    }
}

impl Setting for SecretString {
    const KIND: &'static str = "secret";
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self::from(text))
    }
    fn written(&self) -> String {
        "(set)".to_owned()
    }
}

impl<T: Setting> Setting for Option<T> {
    const KIND: &'static str = T::KIND;
    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }
    fn written(&self) -> String {
        self.as_ref().map_or_else(|| "(not set)".to_owned(), T::written)
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl Setting for Duration {
    const KIND: &'static str = "duration";
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("is `{text}`; it must be a duration such as `500ms`, `30s`, `15m`, `24h` or `7d`");
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        number.checked_mul(unit_ms).map(Self::from_millis).ok_or_else(wrong)
    }
    fn written(&self) -> String {
        let ms = self.as_millis();
        let (size, unit) = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")]
            .into_iter()
            .find(|(size, _)| ms >= *size && ms.is_multiple_of(*size))
            .unwrap_or((1, "ms"));
        if ms == 0 { "0s".to_owned() } else { format!("{}{unit}", ms / size) }
    }
}

impl Setting for ByteSize {
    const KIND: &'static str = "size";
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("is `{text}`; it must be a size such as `1MB`, `512KB` or `1048576`");
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let number: usize = number.parse().map_err(|_| wrong())?;
        // Powers of 1,024, as body parsers of the field have it: `1MB` is 1,048,576 bytes.
        let shift = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "kb" | "kib" => 10,
            "mb" | "mib" => 20,
            "gb" | "gib" => 30,
            _ => return Err(wrong()),
        };
        number.checked_mul(1 << shift).map(Self).ok_or_else(wrong)
    }
    fn written(&self) -> String {
        let (shift, unit) = [(30, "GB"), (20, "MB"), (10, "KB")]
            .into_iter()
            .find(|(shift, _)| self.0 >= 1 << shift && self.0.is_multiple_of(1 << shift))
            .unwrap_or((0, "B"));
        format!("{}{unit}", self.0 >> shift)
    }
}

impl Setting for Vec<IpNet> {
    const KIND: &'static str = "list of CIDRs";
    const EMPTY_IS_A_VALUE: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        let one = |item: &str| {
            item.parse::<IpNet>()
                .or_else(|_| item.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| format!("has `{item}`, which is neither an address nor a CIDR"))
        };
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(one).collect()
    }
    fn written(&self) -> String {
        self.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

impl Setting for Origins {
    const KIND: &'static str = "list of origins";
    const EMPTY_IS_A_VALUE: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        let mut origins = Self { any: false, list: Vec::new() };
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            if item == "*" {
                origins.any = true;
                continue;
            }
            // An origin is a scheme, a host and perhaps a port (RFC 6454, 6.1); a path or a slash at the end would never match what browsers send.
            let uri: http::Uri = item.parse().map_err(|_| format!("has `{item}`, which is no origin"))?;
            let bare =
                format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.authority().map(|authority| authority.as_str()).unwrap_or_default());
            if uri.scheme().is_none() || bare != item || item.contains('@') || item.contains('*') {
                return Err(format!("has `{item}`; an origin is a scheme and a host without a path, such as `https://app.example.com`"));
            }
            origins.list.push(item.to_ascii_lowercase());
        }
        if origins.any && !origins.list.is_empty() {
            return Err("has `*` beside other origins: set one or the other".to_owned());
        }
        Ok(origins)
    }
    fn written(&self) -> String {
        if self.any { "*".to_owned() } else { self.list.join(",") }
    }
}

macro_rules! choice {
    ($($type:ident = $($word:literal => $variant:ident),+;)*) => {$(
        impl Setting for $type {
            const KIND: &'static str = "choice";
            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(format!("is `{text}`; it must be one of {}", [$(concat!("`", $word, "`")),+].join(", "))),
                }
            }
            fn written(&self) -> String {
                match self { $(Self::$variant => $word.to_owned()),+ }
            }
        }
    )*};
}

choice! {
    AppEnv = "development" => Development, "production" => Production;
    LogFormat = "json" => Json, "text" => Text;
    Pooler = "none" => None, "transaction" => Transaction;
    ContentPolicy = "documents" => Documents, "api" => Api;
}
