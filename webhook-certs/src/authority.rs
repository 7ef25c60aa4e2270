/*!
A certificate authority: a self-signed ECDSA P-256 certificate and its key. It is read back from PEM
with suspicion, because what is in a Secret may have been truncated, mixed up or replaced by hand.
*/

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData,
};
use x509_parser::pem::Pem;

use crate::lifetimes::Validity;

/// An authority that can sign.
pub struct Authority {
    certificate: Certificate,
    key: KeyPair,
}

/// An authority's certificate without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pem: String,
    validity: Validity,
    public_key: Vec<u8>,
}

/// Why something is not an authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate is not PEM.
    #[error("the certificate is not PEM: {0}")]
    Pem(String),
    /// The certificate is not X.509.
    #[error("the certificate is not X.509: {0}")]
    X509(String),
    /// The certificate may not sign others.
    #[error("the certificate is not a CA's")]
    NotAuthority,
    /// The key is not PEM of PKCS#8, or of an algorithm that is not supported.
    #[error("the key cannot be read: {0}")]
    Key(rcgen::Error),
    /// Certificate and key belong to different pairs.
    #[error("the key is not the certificate's")]
    Mismatch,
    /// A new one could not be made.
    #[error("cannot make a certificate: {0}")]
    Generate(rcgen::Error),
}

// === impl Authority ===

impl Authority {
    /// A new authority, valid from now.
    pub fn generate(now: SystemTime, lifetime: Duration) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Generate)?;
        let validity = Validity::from(now, lifetime);
        let mut params = CertificateParams::default();
        params.not_before = validity.not_before.into();
        params.not_after = validity.not_after.into();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // A name of its own for each, so that nothing confuses the two of an overlap.
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(
            DnType::CommonName,
            format!("stoppablecontainer webhook CA {seconds}"),
        );
        let certificate = params.self_signed(&key).map_err(AuthorityError::Generate)?;
        Ok(Self {
            certificate: Certificate::from_pem(&certificate.pem())?,
            key,
        })
    }

    /// Reads an authority back.
    ///
    /// # Guarantees
    /// The certificate is a CA's and the key is its own. Whether it is still valid is the caller's
    /// question.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, AuthorityError> {
        let certificate = Certificate::from_pem(certificate)?;
        let key = KeyPair::from_pem(key).map_err(AuthorityError::Key)?;
        if key.subject_public_key_info() == certificate.public_key {
            Ok(Self { certificate, key })
        } else {
            Err(AuthorityError::Mismatch)
        }
    }

    /// The certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The key as PEM. It belongs into the Secret and nowhere else.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// For signing.
    pub(crate) fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, AuthorityError> {
        Issuer::from_ca_cert_pem(&self.certificate.pem, &self.key).map_err(AuthorityError::Generate)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("validity", &self.certificate.validity)
            .finish_non_exhaustive()
    }
}

// === impl Certificate ===

impl Certificate {
    /// Reads the certificate of an authority: one PEM block, nothing else.
    pub fn from_pem(pem: &str) -> Result<Self, AuthorityError> {
        let blocks = Pem::iter_from_buffer(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
        let blocks = blocks.map_err(|error| AuthorityError::Pem(error.to_string()))?;
        let [block] = blocks.as_slice() else {
            return Err(AuthorityError::Pem(format!(
                "{} blocks instead of one",
                blocks.len()
            )));
        };
        let x509 = block
            .parse_x509()
            .map_err(|error| AuthorityError::X509(error.to_string()))?;
        let constraints = x509
            .basic_constraints()
            .map_err(|error| AuthorityError::X509(error.to_string()))?;
        if !constraints.is_some_and(|c| c.value.ca) {
            return Err(AuthorityError::NotAuthority);
        }
        let validity = Validity::of(&x509);
        let public_key = x509.public_key().raw.to_vec();
        Ok(Self {
            pem: pem.trim_end().to_owned() + "\n",
            validity,
            public_key,
        })
    }

    /// As PEM, with a line feed at the end.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// When it is valid.
    pub fn validity(&self) -> Validity {
        self.validity
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_hours(500_000)
    }

    #[test]
    fn an_authority_can_be_stored_and_read_back() {
        let authority = Authority::generate(now(), Duration::from_secs(1000)).unwrap();
        let again = Authority::from_pem(authority.certificate().pem(), &authority.key_pem()).unwrap();
        assert_eq!(again.certificate(), authority.certificate());
        assert_eq!(again.certificate().validity().made(), now());
    }

    #[test]
    fn f9_foreign_truncated_and_mixed_up_contents_are_told_apart() {
        let [one, two] = [(); 2].map(|()| Authority::generate(now(), Duration::from_secs(1000)).unwrap());
        let (pem, key) = (one.certificate().pem(), one.key_pem());
        assert!(matches!(
            Authority::from_pem(pem, &two.key_pem()),
            Err(AuthorityError::Mismatch)
        ));
        assert!(matches!(
            Authority::from_pem(pem, &key[..40]),
            Err(AuthorityError::Key(_))
        ));
        assert!(matches!(
            Authority::from_pem(&pem[..100], &key),
            Err(AuthorityError::Pem(_))
        ));
        assert!(matches!(
            Authority::from_pem("", &key),
            Err(AuthorityError::Pem(_))
        ));
        let both = format!("{pem}{}", two.certificate().pem());
        assert!(matches!(
            Authority::from_pem(&both, &key),
            Err(AuthorityError::Pem(_))
        ));
    }
}
