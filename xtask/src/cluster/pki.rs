/*!
Keys and certificates of the cluster, and the kubeconfigs that carry them. Made once; a second node
adds its own.

Three authorities, because they mean different things: the cluster's (names in it are Kubernetes
users), etcd's (a holder of its certificate reads everything), and the aggregation layer's (a holder
of its certificate may name any user).
*/

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

use super::dir::ClusterDir;
use super::network::{API_ADDRESS, API_PORT, SERVICE_ADDRESS};
use super::node::Node;

/// The cluster's authority.
pub(super) const CLUSTER: &str = "ca";
/// The authority of etcd.
pub(super) const ETCD: &str = "etcd-ca";
/// The authority of the aggregation layer.
pub(super) const FRONT_PROXY: &str = "front-proxy-ca";
/// The program that a kubeconfig of each network namespace is for.
pub(super) const PROXY: &str = "kube-proxy";

/// The files of the keys and certificates.
#[derive(Debug)]
pub(crate) struct Pki<'a> {
    dir: &'a ClusterDir,
    /// Port of the API server.
    port: u16,
}

/// Who a certificate speaks for.
struct Subject<'a> {
    common_name: &'a str,
    organization: Option<&'a str>,
    names: &'a [String],
}

// === impl Pki ===

impl<'a> Pki<'a> {
    /// The files below the cluster's directory.
    pub(super) fn new(dir: &'a ClusterDir) -> Self {
        Self::with_port(dir, API_PORT)
    }

    /// The same of a control plane whose API server has another port.
    pub(crate) fn with_port(dir: &'a ClusterDir, port: u16) -> Self {
        Self { dir, port }
    }

    /// The file of a certificate.
    pub(super) fn cert(&self, name: &str) -> String {
        self.dir.join(format!("pki/{name}.crt")).display().to_string()
    }

    /// The file of a key.
    pub(super) fn key(&self, name: &str) -> String {
        self.dir.join(format!("pki/{name}.key")).display().to_string()
    }

    /// Makes what the control plane needs and is not there.
    pub(crate) fn prepare_control_plane(&self) -> Result<()> {
        self.dir.make("pki", 0o700)?;
        for authority in [CLUSTER, ETCD, FRONT_PROXY] {
            self.authority(authority)?;
        }
        let local = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let api = [
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ]
        .map(str::to_owned)
        .into_iter()
        .chain([API_ADDRESS.to_string(), SERVICE_ADDRESS.to_string()])
        .chain(local.clone())
        .collect::<Vec<_>>();
        let masters = Some("system:masters");
        self.leaf(
            ETCD,
            "etcd",
            &Subject {
                common_name: "etcd",
                organization: None,
                names: &local,
            },
        )?;
        self.leaf(
            ETCD,
            "apiserver-etcd",
            &Subject {
                common_name: "kube-apiserver",
                organization: None,
                names: &[],
            },
        )?;
        self.leaf(
            CLUSTER,
            "apiserver",
            &Subject {
                common_name: "kube-apiserver",
                organization: None,
                names: &api,
            },
        )?;
        let kubelet_client = Subject {
            common_name: "kube-apiserver-kubelet-client",
            organization: masters,
            names: &[],
        };
        self.leaf(CLUSTER, "apiserver-kubelet", &kubelet_client)?;
        let front_proxy = Subject {
            common_name: "front-proxy-client",
            organization: None,
            names: &[],
        };
        self.leaf(FRONT_PROXY, "front-proxy-client", &front_proxy)?;
        self.service_account_key()?;
        let here = Ipv4Addr::LOCALHOST;
        self.user("admin", "kubernetes-admin", masters, here)?;
        for part in ["kube-controller-manager", "kube-scheduler", PROXY] {
            self.user(part, &format!("system:{part}"), None, here)?;
        }
        Ok(())
    }

    /// Makes what a node needs and is not there: its kubelet's identity and serving certificate,
    /// and the identity of a virtual machine's kube-proxy.
    pub(super) fn prepare_node(&self, node: &Node) -> Result<()> {
        let names = [node.name.clone(), node.address().to_string()];
        let serving = format!("{}-serving", node.name);
        let common_name = format!("system:node:{}", node.name);
        let subject = Subject {
            common_name: &common_name,
            organization: Some("system:nodes"),
            names: &names,
        };
        self.leaf(CLUSTER, &serving, &subject)?;
        let organization = Some("system:nodes");
        if !node.is_machine() {
            return self.user(&node.name, &common_name, organization, Ipv4Addr::LOCALHOST);
        }
        self.user(&node.name, &common_name, organization, API_ADDRESS)?;
        let proxy = format!("{}-{PROXY}", node.name);
        self.user(&proxy, &format!("system:{PROXY}"), None, API_ADDRESS)
    }

    /// A user's certificate and the kubeconfig `kubeconfig/NAME.conf` that holds it, for use where
    /// the API server has this address.
    fn user(
        &self,
        name: &str,
        common_name: &str,
        organization: Option<&str>,
        server: Ipv4Addr,
    ) -> Result<()> {
        let file = format!("kubeconfig/{name}.conf");
        if self.dir.join(&file).is_file() {
            return Ok(());
        }
        let (cert, key) = self.issue(
            CLUSTER,
            &Subject {
                common_name,
                organization,
                names: &[],
            },
        )?;
        let authority = fs::read_to_string(self.cert(CLUSTER)).context("reading the cluster's authority")?;
        let server = format!("https://{server}:{}", self.port);
        // JSON is YAML: every client reads it.
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "stoppablecontainer",
            "clusters": [{"name": "stoppablecontainer", "cluster": {
                "server": server, "certificate-authority-data": base64(authority.as_bytes()),
            }}],
            "users": [{"name": name, "user": {
                "client-certificate-data": base64(cert.as_bytes()), "client-key-data": base64(key.as_bytes()),
            }}],
            "contexts": [{"name": "stoppablecontainer", "context": {"cluster": "stoppablecontainer", "user": name}}],
        });
        self.dir
            .write(file, &serde_json::to_vec_pretty(&config)?, 0o600)?;
        Ok(())
    }

    fn authority(&self, name: &str) -> Result<()> {
        if self.exists(name) {
            return Ok(());
        }
        let key = KeyPair::generate().context("making a key")?;
        let mut params = params(&Subject {
            common_name: name,
            organization: None,
            names: &[],
        })?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let cert = params
            .self_signed(&key)
            .with_context(|| format!("making the authority {name}"))?;
        self.store(name, &cert.pem(), &key.serialize_pem())
    }

    fn leaf(&self, authority: &str, name: &str, subject: &Subject<'_>) -> Result<()> {
        if self.exists(name) {
            return Ok(());
        }
        let (cert, key) = self.issue(authority, subject)?;
        self.store(name, &cert, &key)
    }

    fn issue(&self, authority: &str, subject: &Subject<'_>) -> Result<(String, String)> {
        let read = |path: String| fs::read_to_string(&path).with_context(|| format!("reading {path}"));
        let authority_key =
            KeyPair::from_pem(&read(self.key(authority))?).context("reading an authority's key")?;
        let issuer = Issuer::from_ca_cert_pem(&read(self.cert(authority))?, authority_key)
            .with_context(|| format!("reading the authority {authority}"))?;
        let key = KeyPair::generate().context("making a key")?;
        let mut params = params(subject)?;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let cert = params
            .signed_by(&key, &issuer)
            .with_context(|| format!("certifying {}", subject.common_name))?;
        Ok((cert.pem(), key.serialize_pem()))
    }

    /// The key that signs service account tokens: not a certificate, a bare pair.
    fn service_account_key(&self) -> Result<()> {
        if self.dir.join("pki/service-account.key").is_file() {
            return Ok(());
        }
        let key = KeyPair::generate().context("making a key")?;
        self.dir
            .write("pki/service-account.pub", key.public_key_pem().as_bytes(), 0o600)?;
        self.dir
            .write("pki/service-account.key", key.serialize_pem().as_bytes(), 0o600)?;
        Ok(())
    }

    fn exists(&self, name: &str) -> bool {
        self.dir.join(format!("pki/{name}.crt")).is_file()
    }

    /// The key first: a certificate that exists always has its key.
    fn store(&self, name: &str, cert: &str, key: &str) -> Result<()> {
        self.dir.write(format!("pki/{name}.key"), key.as_bytes(), 0o600)?;
        self.dir
            .write(format!("pki/{name}.crt"), cert.as_bytes(), 0o600)?;
        Ok(())
    }
}

fn params(subject: &Subject<'_>) -> Result<CertificateParams> {
    let names = subject.names.to_vec();
    debug_assert!(
        names
            .iter()
            .all(|name| name.parse::<IpAddr>().is_ok() || !name.contains(':'))
    );
    let mut params =
        CertificateParams::new(names).with_context(|| format!("naming {}", subject.common_name))?;
    let mut name = DistinguishedName::new();
    if let Some(organization) = subject.organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, subject.common_name);
    params.distinguished_name = name;
    // The cluster is a developer's toy that is thrown away: nothing in it may expire while it is
    // used.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Standard base64 with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .fold(0u32, |word, byte| (word << 8) | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * place)) as usize & 63];
            text.push(if place > chunk.len() {
                '='
            } else {
                char::from(digit)
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_of_rfc_4648() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ];
        for (plain, encoded) in cases {
            assert_eq!(super::base64(plain.as_bytes()), encoded);
        }
    }
}
