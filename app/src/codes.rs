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
    /// Registration is closed to strangers.
    REGISTRATION_CLOSED = "registration_closed", 403, "Registration is closed";
    /// The cursor is none that a list of this order gave out.
    CURSOR_NOT_FOUND = "cursor_not_found", 404, "This list has no page at this cursor";
    /// No such account.
    USER_NOT_FOUND = "user_not_found", 404, "User not found";
    /// No such product, or it was removed.
    PRODUCT_NOT_FOUND = "product_not_found", 404, "Product not found";
    /// The address belongs to an account already.
    EMAIL_TAKEN = "email_taken", 409, "An account with this e-mail already exists";
    /// The number belongs to a product already.
    SKU_TAKEN = "sku_taken", 409, "A product with this SKU already exists";
    /// The last administrator cannot go: nobody could let anybody in again.
    LAST_ADMIN = "last_admin", 409, "The last administrator cannot be removed or lose the role";
}
