/*!
A serving certificate that cert-manager or an administrator makes and renews. It is in a Secret of
type `kubernetes.io/tls`. If the Secret has the authority's certificates in `ca.crt`, the operator
publishes them.
*/

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::parse_x509_certificate;

use crate::leaf::Leaf;
use crate::lifetimes::Validity;

/// What the Secret holds.
#[derive(Clone, Debug)]
pub struct Supplied {
    /// The certificate with its chain and key.
    pub leaf: Leaf,
    /// What API servers must trust; `None` leaves `caBundle` to another program.
    pub bundle: Option<String>,
}

/// Why the Secret cannot be served with.
#[derive(Debug, thiserror::Error)]
pub enum SuppliedError {
    /// A key is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A value is not PEM of what its key says.
    #[error("{0}: {1}")]
    Pem(&'static str, #[source] pem::Error),
    /// The first certificate is not X.509.
    #[error("tls.crt: not X.509: {0}")]
    X509(String),
    /// The key is not the certificate's, or of a kind that TLS has no use for.
    #[error("tls.key: {0}")]
    Key(#[source] rustls::Error),
}

/// Reads the Secret. Whether the certificate is valid now is the caller's question.
pub fn read(secret: &Secret) -> Result<Supplied, SuppliedError> {
    let chain = certificates(secret, "tls.crt")?;
    let key = PrivateKeyDer::from_pem_slice(value(secret, "tls.key")?);
    let key = key.map_err(|error| SuppliedError::Pem("tls.key", error))?;
    let key = any_supported_type(&key).map_err(SuppliedError::Key)?;
    let validity = validity(&chain[0])?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(SuppliedError::Key)?;
    let bundle = match value(secret, "ca.crt") {
        Ok(bytes) if !bytes.is_empty() => {
            certificates(secret, "ca.crt")?;
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
        Ok(_) | Err(_) => None,
    };
    Ok(Supplied {
        leaf: Leaf {
            key: Arc::new(certified),
            validity,
            issuer: None,
        },
        bundle,
    })
}

/// At least one certificate.
fn certificates(secret: &Secret, key: &'static str) -> Result<Vec<CertificateDer<'static>>, SuppliedError> {
    let certificates = CertificateDer::pem_slice_iter(value(secret, key)?).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| SuppliedError::Pem(key, error))?;
    if certificates.is_empty() {
        Err(SuppliedError::Missing(key))
    } else {
        Ok(certificates)
    }
}

fn validity(certificate: &CertificateDer<'_>) -> Result<Validity, SuppliedError> {
    let (_, x509) =
        parse_x509_certificate(certificate).map_err(|error| SuppliedError::X509(error.to_string()))?;
    Ok(Validity::of(&x509))
}

fn value<'a>(secret: &'a Secret, key: &'static str) -> Result<&'a [u8], SuppliedError> {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    value
        .map(|value| value.0.as_slice())
        .ok_or(SuppliedError::Missing(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    fn secret(pairs: &[(&str, &str)]) -> Secret {
        let data = pairs
            .iter()
            .map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec())));
        Secret {
            data: Some(data.collect()),
            ..Secret::default()
        }
    }

    fn pair() -> (String, String) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["webhook.ns.svc".to_owned()]).unwrap();
        (cert.pem(), signing_key.serialize_pem())
    }

    #[test]
    fn a_chain_with_its_key_is_served_and_the_authority_published() {
        let ((certificate, key), (authority, _)) = (pair(), pair());
        let chain = format!("{certificate}{authority}");
        let supplied = read(&secret(&[
            ("tls.crt", &chain),
            ("tls.key", &key),
            ("ca.crt", &authority),
        ]))
        .unwrap();
        assert_eq!(supplied.leaf.key.cert.len(), 2);
        assert_eq!(supplied.bundle.as_deref(), Some(authority.as_str()));
        let alone = read(&secret(&[
            ("tls.crt", &certificate),
            ("tls.key", &key),
            ("ca.crt", ""),
        ]))
        .unwrap();
        assert_eq!(alone.bundle, None);
    }

    #[test]
    fn f9_what_cannot_be_served_with_is_named() {
        let ((certificate, key), (_, other)) = (pair(), pair());
        let error = |pairs: &[(&str, &str)]| read(&secret(pairs)).unwrap_err().to_string();
        assert_eq!(error(&[("tls.key", &key)]), "tls.crt is missing");
        assert_eq!(error(&[("tls.crt", &certificate)]), "tls.key is missing");
        assert!(error(&[("tls.crt", &certificate), ("tls.key", &other)]).starts_with("tls.key: "));
        assert!(error(&[("tls.crt", &certificate), ("tls.key", &key[..40])]).starts_with("tls.key: "));
        assert!(error(&[("tls.crt", "rubbish"), ("tls.key", &key)]).starts_with("tls.crt"));
        assert!(
            error(&[("tls.crt", &certificate), ("tls.key", &key), ("ca.crt", "x")]).starts_with("ca.crt")
        );
    }
}
