//! Certificates over real TLS.
