//! Backends behind TLS, with certificates that may be as wrong as the real ones.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS12;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// An authority that scenarios trust, or not.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a certificate says of its holder.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    pub name: &'static str,
    pub is_expired: bool,
}

/// Good until long after this is read.
pub fn valid(name: &'static str) -> Identity {
    Identity { name, is_expired: false }
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its own certificate, as a file holds it.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server's side with a certificate for this identity.
    pub fn server(&self, identity: Identity) -> ServerConfig {
        let (chain, key) = self.certificate(identity);
        ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap()
    }

    /// The same, and clients must have a certificate, too.
    pub fn server_for_known_clients(&self, identity: Identity) -> ServerConfig {
        let (chain, key) = self.certificate(identity);
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap()
    }

    /// A server's side whose certificate signs itself and is marked as an authority, as `openssl req -x509` makes it; and
    /// the certificate as a file holds it.
    pub fn self_signed(name: &str) -> (ServerConfig, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (chain, pem) = (vec![certificate.der().clone()], certificate.pem());
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let builder = ServerConfig::builder().with_no_client_auth();
        (builder.with_single_cert(chain, key).unwrap(), pem)
    }

    /// A certificate for this identity and its key, as files hold them.
    pub fn pem_of(&self, identity: Identity) -> (String, String) {
        let (certificate, key) = self.signed(identity);
        (certificate.pem(), key.serialize_pem())
    }

    /// A certificate of a key of one's own, for these names.
    pub fn pem_with(&self, key: &KeyPair, names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        params.distinguished_name.push(DnType::CommonName, names[0].as_str());
        params.signed_by(key, &*self.0).unwrap().pem()
    }

    /// A client that knows no newer version than TLS 1.2.
    pub fn client_of_tls12(&self) -> ClientConfig {
        let builder = ClientConfig::builder_with_protocol_versions(&[&TLS12]);
        builder.with_root_certificates(self.roots()).with_no_client_auth()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    /// Writes `NAME.crt` and `NAME.key` into a folder: a certificate for this identity.
    pub fn write(&self, folder: &Path, name: &str, identity: Identity) {
        let (cert, key) = self.pem_of(identity);
        std::fs::write(folder.join(format!("{name}.crt")), cert).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key).unwrap();
    }

    /// A client's side with a certificate of this subject (`O` and `CN`) that ends at this time.
    pub fn client_until(&self, organization: &str, name: &str, end: std::time::SystemTime) -> ClientConfig {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after =
            date_time_ymd(1970, 1, 1) + end.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let key = KeyPair::generate().unwrap();
        let chain = vec![params.signed_by(&key, &*self.0).unwrap().der().clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let builder = ClientConfig::builder().with_root_certificates(self.roots());
        builder.with_client_auth_cert(chain, key).unwrap()
    }

    /// A client's side that trusts this authority, with a certificate for this identity if there is one.
    pub fn client(&self, identity: Option<Identity>) -> ClientConfig {
        let builder = ClientConfig::builder().with_root_certificates(self.roots());
        match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let (chain, key) = self.certificate(identity);
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        }
    }

    fn certificate(
        &self,
        identity: Identity,
    ) -> (Vec<tokio_rustls::rustls::pki_types::CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let (certificate, key) = self.signed(identity);
        (vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
    }

    fn signed(&self, identity: Identity) -> (Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![identity.name.to_owned()]).unwrap();
        if identity.is_expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2020, 12, 31);
        }
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &*self.0).unwrap(), key)
    }
}

/// Shakes hands with the gateway as a client that asks for this name.
pub async fn shake_hands(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &'static str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    TlsConnector::from(Arc::clone(config)).connect(name.try_into().unwrap(), tcp).await
}

/// Takes off TLS in front of a backend; the address to be configured.
pub async fn in_front_of(backend: SocketAddr, server: ServerConfig) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let mut outside = match acceptor.accept(stream).into_fallible().await {
                    Ok(outside) => outside,
                    Err((_, mut refused)) => {
                        // What is not read would become a reset, which destroys the alert on its way.
                        let _ = tokio::io::copy(&mut refused, &mut tokio::io::sink()).await;
                        return;
                    }
                };
                let Ok(mut inside) = TcpStream::connect(backend).await else { return };
                let _ = inside.set_nodelay(true);
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    address
}
