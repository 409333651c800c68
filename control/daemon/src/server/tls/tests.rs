use std::time::SystemTime;

use novacron_control_api::configuration::{Entry, Layers, Origin, Raw};
use novacron_keys::store::Mode;
use novacron_keys::{Authority, Issued, Revocation, Why};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use super::*;

/// The node's certificate is judged by gateways' tests; here only callers are.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn authority(site: &str, role: &str) -> Authority {
    let name = format!("novacron://{site}/authority/{role}").parse().unwrap();
    Authority::make(&name, 30, SystemTime::now()).unwrap()
}

fn issue(by: &Authority, identity: &str) -> Issued {
    by.issue(&identity.parse().unwrap(), 10, SystemTime::now()).unwrap()
}

struct Node {
    folder: tempfile::TempDir,
    callers: Authority,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = issue(&authority("site-a", "gateway"), "novacron://site-a/gateway/gw-1");
        let write =
            |name: &str, bytes: &[u8], mode| store::write(&folder.path().join(name), bytes, mode).unwrap();
        write("gateway.crt", own.certificate.to_pem().as_bytes(), Mode::Public);
        write("gateway.key", own.key.unwrap().expose(), Mode::Secret);
        Self { folder, callers: authority("site-a", "caller") }
    }

    /// The acceptor as configured, with these PEM blocks for callers.
    fn acceptor(&self, method: &str, pem: &str) -> Result<Arc<Acceptor>, String> {
        let file = self.folder.path().join("callers.pem");
        std::fs::write(&file, pem).unwrap();
        let (file, folder) = (file.display().to_string(), self.folder.path().display().to_string());
        let mut layers = Layers::new();
        let pairs =
            [("identity_dir", &folder), ("caller_authorities", &file), ("auth_method", &method.to_owned())];
        layers.add(pairs.map(|(key, text)| Entry {
            path: format!("security.{key}"),
            raw: Raw::Given(text.clone()),
            origin: Origin::Default,
        }));
        acceptor(&layers.resolve().unwrap().configuration)
    }
}

/// Who the acceptor takes a caller for that shows this certificate, or none.
async fn taken_for(acceptor: &Acceptor, shown: Option<Issued>) -> Result<Who, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let config = match shown {
        None => builder.with_no_client_auth(),
        Some(Issued { certificate, key }) => {
            let key = PrivateKeyDer::from_pem_slice(key.unwrap().expose()).unwrap();
            builder.with_client_auth_cert(vec![CertificateDer::from(certificate.der)], key).unwrap()
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let dialling = async move {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("node").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    let taking = async {
        let (stream, _) = listener.accept().await.unwrap();
        acceptor.accept(stream).await.map(|(_, who)| who)
    };
    tokio::join!(taking, dialling).0
}

#[tokio::test]
async fn a_caller_of_the_site_is_known_by_its_certificate() {
    let node = Node::new();
    let acceptor = node.acceptor("mtls", &node.callers.certificate.to_pem()).unwrap();
    let name = "novacron://site-a/caller/fleet";
    let who = taken_for(&acceptor, Some(issue(&node.callers, name))).await.unwrap();
    assert_eq!(who, Who::Certificate(name.parse().unwrap()));
    assert!(taken_for(&acceptor, None).await.is_err(), "no certificate");
}

#[tokio::test]
async fn others_are_turned_away() {
    let node = Node::new();
    let revoked = issue(&node.callers, "novacron://site-a/caller/old");
    let taken_back = Revocation {
        serial: revoked.certificate.serial.clone(),
        at: SystemTime::now().into(),
        why: Why::Unspecified,
    };
    let list = node.callers.revocation_list(&[taken_back], 1, SystemTime::now()).unwrap();
    let pem = node.callers.certificate.to_pem() + &list.to_pem();
    let acceptor = node.acceptor("mtls", &pem).unwrap();
    assert!(taken_for(&acceptor, Some(revoked)).await.is_err(), "revoked");
    let strange = authority("site-a", "caller");
    let forged = issue(&strange, "novacron://site-a/caller/fleet");
    assert!(taken_for(&acceptor, Some(forged)).await.is_err(), "an authority that nobody named");
    let gateway = issue(&authority("site-a", "gateway"), "novacron://site-a/gateway/gw-2");
    assert!(taken_for(&acceptor, Some(gateway)).await.is_err(), "a gateway's certificate commands nothing");
    assert!(taken_for(&acceptor, Some(issue(&node.callers, "novacron://site-a/caller/fleet"))).await.is_ok());
}

#[tokio::test]
async fn by_token_nobody_is_known_before_it_is_shown() {
    let node = Node::new();
    let acceptor = node.acceptor("token", "").unwrap();
    assert_eq!(taken_for(&acceptor, None).await, Ok(Who::Unknown));
}

#[test]
fn a_file_without_authorities_for_callers_is_refused() {
    let node = Node::new();
    let gateways = authority("site-a", "gateway").certificate.to_pem();
    let why = node.acceptor("mtls", &gateways).err().unwrap();
    assert!(why.contains("no authority for callers"), "{why}");
}
