/*!
The authorities as the data of a Secret. The keys `ca.crt` and `ca.key` hold the current authority.
A rotation also needs `next.crt`, `next.key` and `previous.crt`. All other keys of the Secret belong
to other programs and are kept.
*/

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;

use crate::authority::{Authority, AuthorityError, Certificate};
use crate::material::Material;

const CURRENT: [&str; 2] = ["ca.crt", "ca.key"];
const NEXT: [&str; 2] = ["next.crt", "next.key"];
const PREVIOUS: &str = "previous.crt";

/// Why the contents of the Secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// A key is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A value is not text.
    #[error("{0} is not UTF-8")]
    Encoding(&'static str),
    /// A value is not what its key says.
    #[error("{0}: {1}")]
    Authority(&'static str, #[source] AuthorityError),
}

/// Reads the authorities. Parts that only a rotation needs are left out with a log line when they
/// are damaged: the rotation begins again.
pub fn read(secret: &Secret) -> Result<Material, SecretError> {
    let current = authority(secret, CURRENT)?;
    let next = has(secret, NEXT[0])
        .then(|| authority(secret, NEXT))
        .and_then(logged);
    let previous = has(secret, PREVIOUS)
        .then(|| certificate(secret, PREVIOUS))
        .and_then(logged);
    Ok(Material {
        current,
        next,
        previous,
    })
}

/// The Secret with `material` in it, otherwise as `stored` (resource version included), or new.
pub fn write(stored: Option<&Secret>, name: &str, namespace: &str, material: &Material) -> Secret {
    let mut secret = stored.cloned().unwrap_or_else(|| Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(BTreeMap::from([(
                "app.kubernetes.io/name".to_owned(),
                "stoppablecontainer".to_owned(),
            )])),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    });
    let data = secret.data.get_or_insert_default();
    data.retain(|key, _| {
        !CURRENT.contains(&key.as_str()) && !NEXT.contains(&key.as_str()) && key != PREVIOUS
    });
    let mut put = |key: &str, text: &str| data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
    for (keys, authority) in [(CURRENT, Some(&material.current)), (NEXT, material.next.as_ref())] {
        if let Some(authority) = authority {
            put(keys[0], authority.certificate().pem());
            put(keys[1], &authority.key_pem());
        }
    }
    if let Some(previous) = &material.previous {
        put(PREVIOUS, previous.pem());
    }
    secret
}

fn authority(secret: &Secret, [certificate, key]: [&'static str; 2]) -> Result<Authority, SecretError> {
    Authority::from_pem(text(secret, certificate)?, text(secret, key)?)
        .map_err(|error| SecretError::Authority(certificate, error))
}

fn certificate(secret: &Secret, key: &'static str) -> Result<Certificate, SecretError> {
    Certificate::from_pem(text(secret, key)?).map_err(|error| SecretError::Authority(key, error))
}

fn has(secret: &Secret, key: &str) -> bool {
    secret.data.as_ref().is_some_and(|data| data.contains_key(key))
}

fn text<'a>(secret: &'a Secret, key: &'static str) -> Result<&'a str, SecretError> {
    let value = secret
        .data
        .as_ref()
        .and_then(|data| data.get(key))
        .ok_or(SecretError::Missing(key))?;
    std::str::from_utf8(&value.0).map_err(|_| SecretError::Encoding(key))
}

fn logged<T>(result: Result<T, SecretError>) -> Option<T> {
    result
        .inspect_err(|error| tracing::warn!(%error, "part of the certificate Secret is damaged and left out"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lifetimes;
    use std::time::SystemTime;

    fn stored() -> Secret {
        let material = Material::generate(SystemTime::now(), &Lifetimes::default()).unwrap();
        write(None, "name", "namespace", &material)
    }

    #[test]
    fn what_was_written_is_read_and_foreign_keys_are_kept() {
        let mut secret = stored();
        secret
            .data
            .as_mut()
            .unwrap()
            .insert("theirs".to_owned(), ByteString(vec![1]));
        let mut material = read(&secret).unwrap();
        material.next = Some(Authority::generate(SystemTime::now(), Lifetimes::default().authority).unwrap());
        material.previous = Some(material.current.certificate().clone());
        let again = write(Some(&secret), "name", "namespace", &material);
        assert_eq!(again.data.as_ref().unwrap()["theirs"], ByteString(vec![1]));
        assert_eq!(read(&again).unwrap().bundle(), material.bundle());
        assert_eq!(
            write(Some(&again), "name", "namespace", &read(&secret).unwrap()),
            secret
        );
    }

    #[rstest::rstest]
    #[case::truncated_key("ca.key", Some(20), "ca.crt: the key cannot be read")]
    #[case::truncated_certificate("ca.crt", Some(60), "ca.crt: the certificate is not")]
    #[case::no_key("ca.key", None, "ca.key is missing")]
    fn f9_damage_is_named(#[case] key: &str, #[case] length: Option<usize>, #[case] message: &str) {
        let mut secret = stored();
        let data = secret.data.as_mut().unwrap();
        match length {
            Some(length) => data.get_mut(key).unwrap().0.truncate(length),
            None => drop(data.remove(key)),
        }
        let error = read(&secret).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }

    #[test]
    fn f9_damage_to_a_rotation_only_starts_it_again() {
        let mut secret = stored();
        secret
            .data
            .as_mut()
            .unwrap()
            .insert("next.crt".to_owned(), ByteString(b"rubbish".to_vec()));
        assert!(read(&secret).unwrap().next.is_none());
    }
}
