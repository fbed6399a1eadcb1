//! A token as text: three parts in base64url (RFC 7515, 7.1), taken apart before anything in it is believed.
//!
//! Promises: one spelling per token. Padding, white space, bits that nobody needs and a fourth part are refused, and so is what is longer than ours.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Refused;

/// Ours have about 500 bytes. A longer text is refused before any work is done on it.
pub(super) const TOKEN_BYTES_MAX: usize = 2048;
/// What the longest token can hold.
const PAYLOAD_BYTES_MAX: usize = TOKEN_BYTES_MAX / 4 * 3;
/// Signatures of EdDSA and ES256 have 64 bytes; the decoder wants whole groups of three.
const SIGNATURE_BYTES_MAX: usize = 66;

const MALFORMED: Refused = Refused("malformed");

/// The parts of a token.
pub(super) struct Compact<'a> {
    /// What the signature is over: the first two parts with their dot.
    pub(super) signing_input: &'a str,
    /// The header, still encoded.
    pub(super) header: &'a str,
    payload: &'a str,
    signature: &'a str,
}

/// A part, decoded, on the stack.
pub(super) struct Decoded<const N: usize>([u8; N], usize);

impl<const N: usize> Decoded<N> {
    fn of(part: &str) -> Result<Self, Refused> {
        let mut bytes = [0; N];
        let length = URL_SAFE_NO_PAD.decode_slice(part, &mut bytes).map_err(|_| MALFORMED)?;
        Ok(Self(bytes, length))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.get(..self.1).unwrap_or_default()
    }
}

impl<'a> Compact<'a> {
    /// Takes a token apart.
    pub(super) fn split(token: &'a str) -> Result<Self, Refused> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refused("too long"));
        }
        let (signing_input, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
        // A dot too many is left in the payload, where no base64 has one.
        let (header, payload) = signing_input.split_once('.').ok_or(MALFORMED)?;
        Ok(Self { signing_input, header, payload, signature })
    }

    pub(super) fn signature(&self) -> Result<Decoded<SIGNATURE_BYTES_MAX>, Refused> {
        Decoded::of(self.signature)
    }

    pub(super) fn payload(&self) -> Result<Decoded<PAYLOAD_BYTES_MAX>, Refused> {
        Decoded::of(self.payload)
    }
}
