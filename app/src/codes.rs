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
    /// No such product, or it was removed.
    PRODUCT_NOT_FOUND = "product_not_found", 404, "Product not found";
    /// The address belongs to an account already.
    EMAIL_TAKEN = "email_taken", 409, "An account with this e-mail already exists";
    /// The number belongs to a product already.
    SKU_TAKEN = "sku_taken", 409, "A product with this SKU already exists";
    /// The last administrator cannot go: nobody could let anybody in again.
    LAST_ADMIN = "last_admin", 409, "The last administrator cannot be removed, disabled or lose the role";
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
