//! Master keys and salts.

/// Master key and salt of a client.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}
