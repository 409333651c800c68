//! Keys and certificates for gateways of tests: a site's authority, made once for each scratch directory, and what it
//! issues. Tests that want papers that are not in order make them here as well.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};

use crate::Scratch;

/// The site of gateways that no test gives another.
pub const SITE: &str = "site-a";

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A site's authority for gateways.
pub struct Authority {
    site: String,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate, its key, and its number.
#[derive(Clone)]
pub struct Paper {
    /// The certificate, PEM.
    pub certificate: String,
    /// Its key, PKCS#8 PEM.
    pub key: String,
    serial: u64,
}

fn uri(text: &str) -> Result<SanType> {
    Ok(SanType::URI(text.try_into().context("a name for a certificate")?))
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(site: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, site);
        params.subject_alt_names = vec![uri(&format!("novacron://{site}/authority/gateway"))?];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { site: site.to_owned(), pem, issuer: Issuer::new(params, key) })
    }

    /// The authority of this scratch directory's gateways: the same each time.
    ///
    /// # Errors
    /// When it can neither be read nor made.
    pub fn of(scratch: &Scratch) -> Result<Self> {
        let [certificate, key] = ["authority.crt", "authority.pem"].map(|name| scratch.file(name));
        if !certificate.exists() {
            let made = Self::new(SITE)?;
            fs::write(&key, made.issuer.key().serialize_pem()).context("keeping a test's key")?;
            fs::write(&certificate, &made.pem).context("keeping a test's certificate")?;
            return Ok(made);
        }
        let pem = fs::read_to_string(&certificate)?;
        let issuer = Issuer::from_ca_cert_pem(&pem, KeyPair::from_pem(&fs::read_to_string(&key)?)?)?;
        Ok(Self { site: SITE.to_owned(), pem, issuer })
    }

    /// Its own certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A gateway's certificate, in order for a day.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn issue(&self, name: &str) -> Result<Paper> {
        self.issue_with(&format!("novacron://{}/gateway/{name}", self.site), |_| {})
    }

    /// A certificate of any name, changed by the test before it is signed.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Result<Paper> {
        let (mut params, serial) = params(name)?;
        change(&mut params);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?.pem();
        Ok(Paper { certificate, key: key.serialize_pem(), serial })
    }

    /// A list that revokes these, PEM.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn revoke(&self, papers: &[&Paper]) -> Result<String> {
        let now = SystemTime::now();
        let revoked = |paper: &&Paper| RevokedCertParams {
            serial_number: SerialNumber::from(paper.serial),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: (now - DAY).into(),
            next_update: (now + DAY).into(),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: papers.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?)
    }
}

/// A certificate that vouches for itself.
///
/// # Errors
/// When it cannot be made.
pub fn self_signed(name: &str) -> Result<Paper> {
    let (params, serial) = params(name)?;
    let key = KeyPair::generate()?;
    Ok(Paper { certificate: params.self_signed(&key)?.pem(), key: key.serialize_pem(), serial })
}

fn params(name: &str) -> Result<(CertificateParams, u64)> {
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY).into();
    params.subject_alt_names = vec![uri(name)?];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    let serial = u64::from_le_bytes(bytes) >> 1 | 1;
    params.serial_number = Some(SerialNumber::from(serial));
    Ok((params, serial))
}

/// What a gateway's identity folder is to hold.
pub struct Folder<'a> {
    /// What it shows.
    pub paper: &'a Paper,
    /// Whom it believes.
    pub believes: &'a [&'a Authority],
    /// Lists of what is revoked, PEM; may be empty.
    pub revoked: &'a str,
    /// `peers.toml`.
    pub peers: &'a str,
}

/// `peers.toml` that lets every gateway of these sites do anything.
pub fn everything_with(sites: &[&str]) -> String {
    sites
        .iter()
        .map(|site| {
            format!(
                "[[peer]]\nidentity = \"novacron://{site}/gateway/*\"\ntenants = [\"*\"]\n\
                 directions = [\"from\", \"to\"]\n\n"
            )
        })
        .collect()
}

impl Folder<'_> {
    /// Writes it, each file whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        let authorities: String = self.believes.iter().map(|authority| authority.pem()).collect();
        for (name, text, mode) in [
            ("gateway.crt", self.paper.certificate.as_str(), 0o644),
            ("gateway.key", self.paper.key.as_str(), 0o600),
            ("authorities.pem", authorities.as_str(), 0o644),
            ("revoked.pem", self.revoked, 0o644),
            ("peers.toml", self.peers, 0o644),
        ] {
            let (written, place) = (path.join(format!("{name}.new")), path.join(name));
            fs::write(&written, text)?;
            fs::set_permissions(&written, fs::Permissions::from_mode(mode))?;
            fs::rename(&written, &place).with_context(|| format!("writing {}", place.display()))?;
        }
        Ok(())
    }
}

/// The folder of a gateway of this scratch directory that trusts all others of it; made if it is not there.
///
/// # Errors
/// When it cannot be made.
pub fn folder_of(scratch: &Scratch, name: &str) -> Result<PathBuf> {
    let path = scratch.file(&format!("{name}.identity"));
    if !path.exists() {
        let authority = Authority::of(scratch)?;
        let paper = authority.issue(name)?;
        let peers = everything_with(&[SITE]);
        Folder { paper: &paper, believes: &[&authority], revoked: "", peers: &peers }.write(&path)?;
    }
    Ok(path)
}
