/*!
Connections to ports of pods, through the API server's port-forward, so that they work on every
cluster: plain HTTP, and TLS. What a TLS server shows is looked at before it is judged: a test can
tell a refusal from a certificate that is not to be trusted.
*/

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::Portforwarder;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

/// How long the kubelet's report about a tunnel that ended is waited for.
const REPORT: Duration = Duration::from_secs(2);

/// What both directions of a tunnel are.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection to a port of a pod.
pub struct Tunnel {
    stream: Box<dyn Duplex>,
    port: u16,
    /// Carries the stream.
    forwarder: Portforwarder,
}

/// A certificate that a server showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The certificate itself.
    pub der: Vec<u8>,
    /// Its subject's issuer.
    pub issuer: String,
    /// Beginning of its validity.
    pub not_before: SystemTime,
    /// End of its validity.
    pub not_after: SystemTime,
}

/// An encrypted connection, or why there is none, and what the server showed.
pub struct Handshake {
    /// The certificate, if the server came to showing one.
    pub shown: Option<Shown>,
    /// The connection, if the certificate is good for the name, by the bundle, now.
    pub connection: Result<Connection>,
}

/// An encrypted connection.
pub struct Connection {
    stream: TlsStream<Box<dyn Duplex>>,
    /// Carries the stream; kept as long as it.
    _forwarder: Portforwarder,
}

/// Judges as any client does, and remembers what it saw.
#[derive(Debug)]
struct Recorder {
    judge: Arc<WebPkiServerVerifier>,
    seen: Mutex<Option<Vec<u8>>>,
}

/// Takes every certificate, as a scraper does that skips verification.
#[derive(Debug)]
struct Trusting(CryptoProvider);

/// Opens a connection to a port of a pod. Whether a process listens there shows when it is used.
pub async fn open(pods: &Api<Pod>, pod: &str, port: u16) -> Result<Tunnel> {
    let forward = pods.portforward(pod, &[port]).await;
    let mut forwarder = forward.with_context(|| format!("cannot forward a port of {pod}"))?;
    let stream = forwarder.take_stream(port).context("a tunnel without stream")?;
    Ok(Tunnel {
        stream: Box::new(stream),
        port,
        forwarder,
    })
}

/// What the kubelet reports about a tunnel after its end: an error may be the tunnel's and not the
/// server's.
async fn end(forwarder: &mut Portforwarder, port: u16) -> String {
    let Some(reported) = forwarder.take_error(port) else {
        return "already asked".to_owned();
    };
    match tokio::time::timeout(REPORT, reported).await {
        Ok(Some(error)) => error,
        Ok(None) => "no error".to_owned(),
        Err(_) => "no report".to_owned(),
    }
}

// === impl Tunnel ===

impl Tunnel {
    /// Asks for a page by plain HTTP/1.1 and returns the whole answer, whatever its status; empty
    /// if the port is closed.
    pub async fn get(mut self, path: &str) -> Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        self.stream.read_to_end(&mut answer).await?;
        Ok(String::from_utf8(answer)?)
    }

    /// A TLS connection with whatever certificate the server shows.
    pub async fn encrypted(self) -> Result<Connection> {
        let provider = ring::default_provider();
        let config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting(provider)))
            .with_no_client_auth();
        let name = ServerName::try_from("pod")?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, self.stream)
            .await?;
        Ok(Connection {
            stream,
            _forwarder: self.forwarder,
        })
    }

    /// A TLS handshake as with the server `name`, trusting the certificates of `bundle` (PEM) only.
    pub async fn handshake(self, name: &str, bundle: &[u8]) -> Result<Handshake> {
        let provider = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(bundle) {
            roots.add(certificate.map_err(|error| anyhow!("the bundle: {error}"))?)?;
        }
        let judge = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        let recorder = Arc::new(Recorder {
            judge,
            seen: Mutex::default(),
        });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(recorder.clone())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned())?;
        let Self {
            stream,
            port,
            mut forwarder,
        } = self;
        let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        let seen = recorder
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let connection = match connected {
            Ok(stream) => Ok(Connection {
                stream,
                _forwarder: forwarder,
            }),
            Err(error) => {
                Err(anyhow!(error).context(format!("the tunnel: {}", end(&mut forwarder, port).await)))
            }
        };
        Ok(Handshake {
            shown: seen.map(Shown::read).transpose()?,
            connection,
        })
    }
}

// === impl Connection ===

impl Connection {
    /// Posts JSON by HTTP/1.1 and returns the body of the answer.
    pub async fn post(self, host: &str, path: &str, body: &str) -> Result<String> {
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        );
        self.ask(path, &request).await
    }

    /// Gets a page by HTTP/1.1, with a bearer token if there is one. Anything but 200 is an error
    /// with the whole answer.
    pub async fn get(self, path: &str, token: Option<&str>) -> Result<String> {
        let token = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
        let request = format!("GET {path} HTTP/1.1\r\nHost: pod\r\n{token}Connection: close\r\n\r\n");
        self.ask(path, &request).await
    }

    async fn ask(mut self, path: &str, request: &str) -> Result<String> {
        self.stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        self.stream.read_to_end(&mut answer).await?;
        let answer = String::from_utf8(answer)?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .context("an answer without end of head")?;
        anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "{path} answered {answer}");
        Ok(body.to_owned())
    }
}

// === impl Shown ===

impl Shown {
    fn read(der: Vec<u8>) -> Result<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(&der)?;
        let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap_or_default());
        let validity = certificate.validity();
        let (not_before, not_after) = (
            time(validity.not_before.timestamp()),
            time(validity.not_after.timestamp()),
        );
        let issuer = certificate.issuer().to_string();
        Ok(Self {
            der,
            issuer,
            not_before,
            not_after,
        })
    }
}

// === impl Recorder ===

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.to_vec());
        self.judge
            .verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.judge.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.judge.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}

// === impl Trusting ===

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
