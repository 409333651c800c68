//! What an authority signs for a holder: a certificate for one identity, for one purpose, for some days.

use std::time::SystemTime;

use rcgen::{
    CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PublicKeyData, SanType,
};

use crate::authority::{Authority, KeyError, common_name, key_pem, new_key, serial, uri, validity};
use crate::bundle::{Bundle, described};
use crate::certificate::Certificate;
use crate::identity::{Identity, Role};
use crate::revoke::RevocationList;
use crate::secret::Secret;

/// A certificate and, where the key was made here, the key in PEM.
#[derive(Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: Certificate,
    /// The key that was made with it; `None` where a request brought a public key.
    pub key: Option<Secret>,
}

impl Authority {
    /// Issues a certificate with a new key.
    ///
    /// # Errors
    /// When the identity is not this authority's to give, or its time has passed.
    pub fn issue(&self, identity: &Identity, days: u32, now: SystemTime) -> Result<Issued, KeyError> {
        let key = new_key()?;
        let certificate = self.sign(&key, identity, days, now)?;
        Ok(Issued { certificate, key: Some(key_pem(&key, None)?) })
    }

    /// Issues a certificate for a request's key. Of the request only the key and the identity count: what else it
    /// asks for, this authority decides.
    ///
    /// # Errors
    /// When it is no request, is not signed by the key it brings, names another than `identity`, or is not this
    /// authority's to grant.
    pub fn issue_requested(
        &self,
        request: &Request,
        identity: &Identity,
        days: u32,
        now: SystemTime,
    ) -> Result<Issued, KeyError> {
        if request.identity != *identity {
            return Err(KeyError::Request(format!("it asks for {}, not for {identity}", request.identity)));
        }
        let certificate = self.sign(&request.csr.public_key, identity, days, now)?;
        Ok(Issued { certificate, key: None })
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        identity: &Identity,
        days: u32,
        now: SystemTime,
    ) -> Result<Certificate, KeyError> {
        self.check_time(now)?;
        if (&identity.site, identity.role) != (&self.name.site, self.name.role) {
            return Err(KeyError::Request(format!("{} may not speak for {identity}", self.name)));
        }
        let (number, _) = serial()?;
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = validity(now, days);
        // Valid before or after its authority, it would be refused all the same, and only puzzle whoever reads it.
        let end = SystemTime::from(self.certificate.not_after).into();
        let start = SystemTime::from(self.certificate.not_before).into();
        (params.not_before, params.not_after) = (params.not_before.max(start), params.not_after.min(end));
        params.serial_number = Some(number);
        params.distinguished_name =
            common_name(&format!("{} {} of {}", identity.role, identity.name, identity.site));
        params.subject_alt_names = vec![uri(&identity.to_string())?];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match identity.role {
            Role::Gateway => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Role::Caller => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        Ok(Certificate::from_der(params.signed_by(key, &self.issuer)?.der())?)
    }
}

/// A request for a certificate: a public key, whom it is for, and proof that the requester holds the key.
#[derive(Debug)]
pub struct Request {
    /// For whom.
    pub identity: Identity,
    csr: CertificateSigningRequestParams,
}

impl Request {
    /// Makes a key and a request for it; both in PEM.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn make(identity: &Identity) -> Result<(Secret, String), KeyError> {
        let key = new_key()?;
        let mut params = CertificateParams::default();
        params.distinguished_name =
            common_name(&format!("{} {} of {}", identity.role, identity.name, identity.site));
        params.subject_alt_names = vec![uri(&identity.to_string())?];
        let csr = params.serialize_request(&key)?;
        Ok((key_pem(&key, None)?, csr.pem()?))
    }

    /// Reads a request and verifies that its key signed it. Total: any bytes are read or refused.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, KeyError> {
        let refused = |why: String| KeyError::Request(why);
        let csr = CertificateSigningRequestParams::from_pem(text).map_err(|why| match why {
            rcgen::Error::InvalidCertificationRequestSignature => {
                refused("it is not signed by the key it brings".into())
            }
            why => refused(format!("it cannot be read ({why})")),
        })?;
        let identity = match csr.params.subject_alt_names.as_slice() {
            [SanType::URI(text)] => text.as_str().parse().map_err(|why| refused(format!("{why}")))?,
            names => return Err(refused(format!("it has {} names; one identity is needed", names.len()))),
        };
        Ok(Self { identity, csr })
    }
}

/// What goes back to whoever made a request, in PEM: the certificate, the authority that signed it, and whom of the
/// own site its holder is to believe. All of it is public.
pub fn reply(certificate: &Certificate, signer: &Certificate, bundle: &Bundle) -> String {
    let signer = if bundle.authorities().contains(signer) { String::new() } else { described(signer) };
    certificate.to_pem() + &signer + &bundle.to_pem()
}

/// Reads a reply: the certificate, its authority, the bundle. Total.
///
/// # Errors
/// When any of them is missing or does not belong to the others.
pub fn read_reply(text: &[u8], now: SystemTime) -> Result<(Certificate, Certificate, Bundle), KeyError> {
    let mut certificates = Certificate::from_pem(text)?;
    let missing = |what: &str| KeyError::Request(format!("it is no answer to a request: {what}"));
    let at = certificates.iter().position(|one| one.identity().is_some());
    let certificate = certificates.remove(at.ok_or_else(|| missing("it holds no holder's certificate"))?);
    let signer = certificates.iter().find(|authority| certificate.is_signed_by(authority)).cloned();
    let signer = signer.ok_or_else(|| missing("it lacks the authority that signed the certificate"))?;
    certificates.retain(|one| one.authority().is_some_and(|name| name.role == Role::Gateway));
    let bundle = Bundle::new(certificates, RevocationList::from_pem(text)?, now)?;
    Ok((certificate, signer, bundle))
}
