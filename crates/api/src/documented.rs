//! Constants whose documentation is also available as data, for `docs/api.md`.

/// Defines text constants and a table of their values and documentation, from one source.
macro_rules! documented {
    (
        $(#[doc = $about:literal])+
        $table:ident:
        $($(#[doc = $doc:literal])+ $name:ident = $value:literal;)+
    ) => {
        $($(#[doc = $doc])+ pub const $name: &str = $value;)+
        $(#[doc = $about])+
        pub const $table: &[(&str, &str)] = &[$(($value, concat!($($doc),+))),+];
    };
}

pub(crate) use documented;
