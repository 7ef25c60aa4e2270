/*!
A serving certificate: made and signed in the memory of the replica that serves with it, never
stored.
*/

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;

use crate::authority::{Authority, AuthorityError, Certificate};
use crate::lifetimes::Validity;

/// A serving certificate with its key.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// For rustls.
    pub key: Arc<CertifiedKey>,
    /// When it is valid.
    pub validity: Validity,
    /// The authority that signed it, if it was made here.
    pub issuer: Option<Certificate>,
}

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// The authority cannot sign.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The certificate could not be made; for example because of an invalid DNS name.
    #[error("cannot make a serving certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// rustls does not take the key.
    #[error("cannot serve with the certificate: {0}")]
    Tls(#[from] rustls::Error),
}

impl Leaf {
    /// A new certificate for `names`, valid from now, at most as long as its authority.
    pub fn issue(
        authority: &Authority,
        names: &[String],
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<Self, LeafError> {
        let issuer = authority.certificate();
        let mut validity = Validity::from(now, lifetime);
        validity.not_after = validity.not_after.min(issuer.validity().not_after);

        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(names)?;
        params.not_before = validity.not_before.into();
        params.not_after = validity.not_after.into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params
            .distinguished_name
            .push(DnType::CommonName, "stoppablecontainer webhook");
        let certificate = params.signed_by(&key, &authority.issuer()?)?;

        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let certified = CertifiedKey::new(vec![certificate.der().clone()], any_ecdsa_type(&der)?);
        Ok(Self {
            key: Arc::new(certified),
            validity,
            issuer: Some(issuer.clone()),
        })
    }
}
