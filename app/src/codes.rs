//! The error codes of the service's own resources; those of the stack are in [`mainstay::error::codes`].

use mainstay::error::Code;

macro_rules! table {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $status:literal, $message:literal;)*) => {
        $($(#[$doc])* pub static $constant: Code = Code::new($name, $status, $message);)*
        /// Every code of the service.
        pub static ALL: &[&Code] = &[$(&$constant),*];
    };
}

table! {
    /// Wrong password or unknown account: the same words for both.
    INVALID_CREDENTIALS = "invalid_credentials", 401, "Invalid e-mail or password";
    /// The refresh token is none, was used before, or its session has ended: the same words for all.
    INVALID_REFRESH_TOKEN = "invalid_refresh_token", 401, "Invalid or expired refresh token, please sign in again";
    /// The password is right, and the account has a second factor.
    SECOND_FACTOR_REQUIRED = "second_factor_required", 401, "A code of your second factor is needed";
    /// No code of now, or one that was used.
    INVALID_SECOND_FACTOR = "invalid_second_factor", 401, "Invalid or used code";
    /// The password that was to be given again is another one.
    WRONG_PASSWORD = "wrong_password", 403, "The password is wrong";
    /// The token of a link is none, was used, has expired, or a newer one took its place: the same words for all.
    INVALID_LINK = "invalid_link", 404, "This link is not good any more, please ask for another one";
    /// Registration is closed to strangers.
    REGISTRATION_CLOSED = "registration_closed", 403, "Registration is closed";
    /// The cursor is none that a list of this order gave out.
    CURSOR_NOT_FOUND = "cursor_not_found", 404, "This list has no page at this cursor";
    /// No such account.
    USER_NOT_FOUND = "user_not_found", 404, "User not found";
    /// No such session of the caller, or it has ended.
    SESSION_NOT_FOUND = "session_not_found", 404, "Session not found";
    /// No such API key of the caller, or it has ended.
    KEY_NOT_FOUND = "key_not_found", 404, "API key not found";
    /// The account has no second factor, or none that waits to be confirmed.
    SECOND_FACTOR_NOT_FOUND = "second_factor_not_found", 404, "Second factor not found";
    /// No such product, or it was removed.
    PRODUCT_NOT_FOUND = "product_not_found", 404, "Product not found";
    /// The address belongs to an account already.
    EMAIL_TAKEN = "email_taken", 409, "An account with this e-mail already exists";
    /// The number belongs to a product already.
    SKU_TAKEN = "sku_taken", 409, "A product with this SKU already exists";
    /// There is one: it must be removed before another begins.
    SECOND_FACTOR_ENABLED = "second_factor_enabled", 409, "A second factor is enabled already";
    /// An account has a bounded number of API keys.
    TOO_MANY_KEYS = "too_many_keys", 409, "The account has as many API keys as it may; revoke one first";
    /// The last administrator cannot go: nobody could let anybody in again.
    LAST_ADMIN = "last_admin", 409, "The last administrator cannot be removed, disabled or lose the role";
    /// The service has no secret under which those of authenticators are sealed, or not the right one.
    SECOND_FACTOR_UNAVAILABLE = "second_factor_unavailable", 503, "Second factors cannot be used on this service at the moment";
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_of_errors_lists_every_code_and_no_other() {
        let page = include_str!("../../docs/errors.md");
        let told: Vec<_> = page
            .lines()
            .filter(|line| line.starts_with("| `") && line.split('|').nth(2).is_some_and(|cell| cell.trim().parse::<u16>().is_ok()))
            .collect();
        let codes: Vec<_> = mainstay::error::codes::ALL.iter().chain(super::ALL).collect();
        for code in &codes {
            let row = format!("| `{}` | {} | {} | ", code.name, code.status.as_u16(), code.message);
            assert!(told.iter().any(|line| line.starts_with(&row)), "docs/errors.md needs the row {row}");
        }
        assert_eq!(told.len(), codes.len(), "docs/errors.md lists a code that does not exist, or one twice");
    }
}
