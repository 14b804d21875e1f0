//! Keys.
/// Keys.
pub struct Keys;
