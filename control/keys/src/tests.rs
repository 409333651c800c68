//! The crate as a whole: authorities, what they issue and revoke, the folders, and `openssl` as a witness.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn site(name: &str) -> Site {
    name.parse().expect("a site")
}

fn gateway(site: &str, name: &str) -> Identity {
    format!("novacron://{site}/gateway/{name}").parse().expect("an identity")
}

/// A passphrase out of a variable.
fn passphrase(text: &'static str) -> Passphrase {
    Passphrase::find(None, |name| (name == secret::PASSPHRASE_VARIABLE).then(|| text.into()))
        .expect("one")
        .expect("one")
}

/// A site's keys in a folder of its own.
pub(crate) struct Keys {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) gateways: Ledger,
    pub(crate) callers: Ledger,
    pub(crate) now: SystemTime,
}

impl Keys {
    pub(crate) fn of(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        // Certificates know whole seconds only.
        let since = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(since);
        let mut made = Ledger::init(&dir.path().join("keys"), &site(name), 365, None, now).expect("made");
        let (callers, gateways) = (made.pop().expect("callers'"), made.pop().expect("gateways'"));
        Self { dir, gateways, callers, now }
    }

    fn issue(&self, identity: &Identity, now: SystemTime) -> Issued {
        self.gateways.issue(identity, None, false, 30, None, now).expect("issued")
    }

    /// The bundle that this site shows others.
    pub(crate) fn bundle(&self) -> Bundle {
        self.gateways.bundle(self.now).expect("a bundle")
    }

    /// A gateway's identity folder, installed.
    pub(crate) fn trust(&self, name: &str) -> Trust {
        let Identity { site, .. } = gateway(self.gateways.name.site.as_str(), name);
        let issued = self.issue(&gateway(site.as_str(), name), self.now);
        let trust = Trust::at(&self.dir.path().join(name));
        let signer = &self.gateways.certificate;
        trust
            .install(&issued.certificate, issued.key.as_ref(), signer, &self.bundle(), self.now)
            .expect("installed");
        trust
    }
}

#[test]
fn an_authority_answers_for_its_own_site_and_role_only() {
    let keys = Keys::of("site-a");
    let issued = keys.issue(&gateway("site-a", "gw-1"), keys.now);
    let certificate = &issued.certificate;
    assert_eq!(certificate.identity(), Some(&gateway("site-a", "gw-1")));
    assert_eq!((certificate.usages.as_slice(), certificate.is_authority), (&["server", "client"][..], false));
    assert!(certificate.is_signed_by(&keys.gateways.certificate));
    assert!(!certificate.is_signed_by(&keys.callers.certificate));
    for other in ["novacron://site-b/gateway/gw-1", "novacron://site-a/caller/alice"] {
        let why = keys.gateways.issue(&other.parse().expect("an identity"), None, false, 30, None, keys.now);
        assert!(why.expect_err("refused").to_string().contains("may not speak for"), "{other}");
    }
    let alice = "novacron://site-a/caller/alice".parse().expect("an identity");
    let caller = keys.callers.issue(&alice, None, false, 30, None, keys.now).expect("issued").certificate;
    assert_eq!(caller.usages, ["client"], "a caller is nobody's server");
    assert!(!format!("{:?}", issued.key).contains("BEGIN"), "keys are shown by nothing");
}

#[test]
fn nothing_is_issued_twice_and_rotating_leaves_the_old_one_valid() {
    let keys = Keys::of("site-a");
    let identity = gateway("site-a", "gw-1");
    let rotate = |now| keys.gateways.issue(&identity, None, true, 30, None, now);
    assert!(matches!(rotate(keys.now), Err(LedgerError::NotIssued(_))));
    let first = keys.issue(&identity, keys.now).certificate;
    let again = keys.gateways.issue(&identity, None, false, 30, None, keys.now);
    assert!(matches!(again, Err(LedgerError::Issued { .. })));
    let second = rotate(keys.now + DAY).expect("rotated").certificate;
    let list = keys.gateways.list(keys.now + DAY, 14 * DAY).expect("a list");
    let seen: Vec<_> = list.iter().map(|entry| (&entry.certificate.serial, entry.standing)).collect();
    assert_eq!(seen, [(&first.serial, Standing::Superseded), (&second.serial, Standing::Valid)]);
    assert!(first.is_current(keys.now + DAY) && !list.iter().any(|entry| entry.needs_action));
    assert!(keys.gateways.revocation_list().expect("a list").serials.is_empty());
}

#[test]
fn what_ends_soon_or_has_lapsed_needs_somebody() {
    let keys = Keys::of("site-a");
    let identity = gateway("site-a", "gw-1");
    keys.issue(&identity, keys.now);
    let seen = |days| {
        let list = keys.gateways.list(keys.now + days * DAY, 14 * DAY).expect("a list");
        list.iter().map(|entry| (entry.standing, entry.days_left, entry.needs_action)).collect::<Vec<_>>()
    };
    assert_eq!(seen(1), [(Standing::Valid, 29, false)]);
    assert_eq!(seen(20), [(Standing::Expiring, 10, true)]);
    assert_eq!(seen(31), [(Standing::Expired, 0, true)]);
    keys.gateways.issue(&identity, None, true, 30, None, keys.now + 20 * DAY).expect("rotated");
    assert_eq!(seen(21)[0], (Standing::Superseded, 9, false));
    assert_eq!(seen(31)[0], (Standing::Expired, 0, false), "its successor serves");
}

#[test]
fn what_is_revoked_stays_so_and_every_list_is_newer() {
    let keys = Keys::of("site-a");
    let (one, two) = (gateway("site-a", "gw-1"), gateway("site-a", "gw-2"));
    let first = keys.issue(&one, keys.now).certificate;
    keys.gateways.issue(&one, None, true, 30, None, keys.now).expect("rotated");
    let other = keys.issue(&two, keys.now).certificate;
    let before = keys.gateways.revocation_list().expect("a list");

    let serial = Which::Serial(first.serial.clone());
    let done = keys.gateways.revoke(&serial, Why::Superseded, None, keys.now).expect("revoked");
    assert_eq!(done.len(), 1);
    let done =
        keys.gateways.revoke(&Which::Identity(one), Why::KeyCompromise, None, keys.now).expect("revoked");
    assert_eq!(done.len(), 1, "the one that is left");
    assert_eq!(keys.gateways.revoke(&serial, Why::Unspecified, None, keys.now).expect("again").len(), 0);

    let list = keys.gateways.revocation_list().expect("a list");
    assert!(list.is_newer_than(&before) && !before.is_newer_than(&list) && !list.is_newer_than(&list));
    assert!(list.is_signed_by(&keys.gateways.certificate) && !list.is_signed_by(&keys.callers.certificate));
    assert!(list.revokes(&first) && !list.revokes(&other) && list.serials.len() == 2);
    let unknown = keys.gateways.revoke(&Which::Serial("00ff".into()), Why::Unspecified, None, keys.now);
    assert!(matches!(unknown, Err(LedgerError::Unknown(_))));
    // A new certificate for a revoked identity is its first again.
    assert_ne!(keys.issue(&gateway("site-a", "gw-1"), keys.now).certificate.serial, first.serial);
}

#[test]
fn a_key_at_rest_opens_with_its_passphrase_only() {
    let dir = tempfile::tempdir().expect("a folder");
    let right = passphrase("correct horse battery");
    Ledger::init(dir.path(), &site("site-a"), 365, Some(&right), SystemTime::now()).expect("made");
    let ledger = Ledger::open(dir.path(), Role::Gateway).expect("opened");
    assert!(ledger.is_encrypted().expect("read"));
    assert!(ledger.authority(Some(&right)).is_ok());
    for (wrong, said) in
        [(None, "no passphrase was found"), (Some(passphrase("incorrect horse battery")), "does not open")]
    {
        let why = ledger.authority(wrong.as_ref()).expect_err("refused").to_string();
        assert!(why.contains(said) && !why.contains("horse"), "{why}");
    }
    let file = std::fs::read_to_string(dir.path().join("gateway/authority.key")).expect("a key");
    assert!(file.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    let again = Ledger::init(dir.path(), &site("site-b"), 365, None, SystemTime::now());
    assert!(matches!(again, Err(LedgerError::Exists(_))), "authorities are never written over");
}

#[test]
fn keys_that_others_may_read_or_that_belong_elsewhere_are_not_used() {
    use std::os::unix::fs::PermissionsExt;
    let keys = Keys::of("site-a");
    let folder = keys.dir.path().join("keys");
    let key = folder.join("gateway/authority.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).expect("a mode");
    let why = keys.gateways.authority(None).expect_err("refused").to_string();
    assert!(why.contains("chmod 600"), "{why}");
    std::fs::copy(folder.join("caller/authority.key"), &key).expect("copied");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    let why = keys.gateways.authority(None).expect_err("refused").to_string();
    assert!(why.contains("another certificate's"), "{why}");
}

#[test]
fn a_request_brings_a_key_and_a_name_and_nothing_else() {
    let keys = Keys::of("site-a");
    let identity = gateway("site-a", "gw-1");
    let trust = Trust::at(&keys.dir.path().join("gw-1"));
    let text = trust.request(&identity).expect("a request");
    let request = Request::read(&text).expect("read");
    assert_eq!(request.identity, identity);
    let other = keys.gateways.issue(&gateway("site-a", "gw-2"), Some(&request), false, 30, None, keys.now);
    assert!(other.expect_err("refused").to_string().contains("asks for"));
    let issued = keys.gateways.issue(&identity, Some(&request), false, 30, None, keys.now).expect("issued");
    assert!(issued.key.is_none(), "the key never left the gateway's host");

    // The certificate of another key is not installed; the right one moves the waiting key into place.
    let stranger = keys.issue(&gateway("site-a", "gw-9"), keys.now).certificate;
    let signer = &keys.gateways.certificate;
    let why =
        trust.install(&stranger, None, signer, &keys.bundle(), keys.now).expect_err("refused").to_string();
    assert!(why.contains("not in this folder"), "{why}");
    trust.install(&issued.certificate, None, signer, &keys.bundle(), keys.now).expect("installed");
    assert_eq!(trust.own().expect("installed"), issued.certificate);
    assert!(trust.key().is_ok() && !trust.folder().join("gateway.key.next").exists());
}

#[test]
fn a_request_with_a_broken_signature_is_refused() {
    let (_, text) = Request::make(&gateway("site-a", "gw-1")).expect("a request");
    let good = pem::parse(&text).expect("PEM").into_contents();
    let as_made = format!("{:?}", Request::read(&text).expect("read"));
    let mut unharmed = 0;
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let bad = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", bad));
        // A few bits around what is signed mean nothing; none changes who asks for what.
        if let Ok(read) = Request::read(&bad) {
            assert_eq!(format!("{read:?}"), as_made, "a bit at {at}");
            unharmed += 1;
        }
    }
    assert!(unharmed * 20 < good.len(), "{unharmed} of {}", good.len());
}

#[test]
fn a_folder_believes_what_belongs_together_only() {
    let (a, b) = (Keys::of("site-a"), Keys::of("site-b"));
    let trust = a.trust("gw-1");
    let rule = novacron_control_api::PeerRule {
        identity: "novacron://site-b/gateway/*".parse().expect("a pattern"),
        tenants: vec!["*".into()],
        directions: vec![novacron_control_api::PeerDirection::From],
    };
    assert!(trust.pair(&b.bundle(), &rule, a.now).expect("paired"));
    assert!(!trust.pair(&b.bundle(), &rule, a.now).expect("paired again"), "the rule is there");
    assert_eq!(trust.authorities().expect("read").len(), 2, "once each");
    assert_eq!(trust.lists().expect("read").len(), 2);
    let peers = trust.peers().expect("read");
    assert!(peers.starts_with("# Which peers"), "what people wrote stays: {peers}");
    let peers = novacron_control_api::Peers::parse(&peers).expect("read");
    assert_eq!(peers.peers, std::slice::from_ref(&rule));
    assert_eq!(trust.bundle(a.now).expect("its own").fingerprints(), [a.gateways.certificate.fingerprint]);
    assert!(trust.pair(&a.bundle(), &rule, a.now).expect_err("itself").to_string().contains("this one"));

    // A newer list is taken, an older one is not, a stranger's is refused.
    let victim = b.issue(&gateway("site-b", "gw-1"), b.now).certificate;
    let old = b.gateways.revocation_list().expect("a list");
    b.gateways
        .revoke(&Which::Serial(victim.serial.clone()), Why::KeyCompromise, None, b.now)
        .expect("revoked");
    let new = b.gateways.revocation_list().expect("a list");
    assert_eq!(trust.revoke(vec![new.clone()]).expect("taken"), 1);
    assert_eq!(trust.revoke(vec![old]).expect("passed over"), 0);
    assert!(trust.lists().expect("read").iter().any(|list| list.revokes(&victim)));
    let stranger = Keys::of("site-b").gateways.revocation_list().expect("a list");
    assert!(trust.revoke(vec![stranger]).is_err());
}

#[test]
fn a_bundle_of_mixed_origin_is_refused() {
    let (a, b) = (Keys::of("site-a"), Keys::of("site-b"));
    let (cert, list) = (
        |keys: &Keys| keys.gateways.certificate.clone(),
        |keys: &Keys| keys.gateways.revocation_list().expect("a list"),
    );
    let leaf = a.issue(&gateway("site-a", "gw-1"), a.now).certificate;
    for (what, authorities, lists, now) in [
        ("nothing", vec![], vec![], a.now),
        ("two sites", vec![cert(&a), cert(&b)], vec![list(&a), list(&b)], a.now),
        ("a leaf", vec![leaf], vec![list(&a)], a.now),
        (
            "callers",
            vec![a.callers.certificate.clone()],
            vec![a.callers.revocation_list().expect("one")],
            a.now,
        ),
        ("no list", vec![cert(&a)], vec![], a.now),
        ("another's list", vec![cert(&a)], vec![list(&a), list(&b)], a.now),
        ("expired", vec![cert(&a)], vec![list(&a)], a.now + 366 * DAY),
        ("too many", vec![cert(&a); 5], vec![list(&a)], a.now),
    ] {
        assert!(Bundle::new(authorities, lists, now).is_err(), "{what}");
    }
    let text = a.bundle().to_pem();
    assert_eq!(Bundle::from_pem(text.as_bytes(), a.now).expect("read"), a.bundle());
}

#[test]
fn a_chain_is_believed_for_its_own_site_time_and_purpose_only() {
    use chain::{ChainFault, Usage, verify};
    let (a, b) = (Keys::of("site-a"), Keys::of("site-b"));
    let impostor = Keys::of("site-a");
    let leaf = a.issue(&gateway("site-a", "gw-1"), a.now).certificate;
    let authorities = [a.gateways.certificate.clone(), b.gateways.certificate.clone()];
    let lists = [a.gateways.revocation_list().expect("one"), b.gateways.revocation_list().expect("one")];
    let ask = |leaf: &Certificate, now| verify(leaf, &authorities, &lists, Usage::Server, now).cloned();
    assert_eq!(ask(&leaf, a.now), Ok(gateway("site-a", "gw-1")));
    assert!(matches!(ask(&leaf, a.now + 31 * DAY), Err(ChainFault::Time(..))));
    assert!(matches!(ask(&leaf, a.now - DAY), Err(ChainFault::Time(..))));
    let forged = impostor.issue(&gateway("site-a", "gw-1"), a.now).certificate;
    assert!(matches!(ask(&forged, a.now), Err(ChainFault::Signer(_))));
    let stranger = Keys::of("site-c");
    let unknown = stranger.issue(&gateway("site-c", "gw-1"), a.now).certificate;
    assert!(matches!(ask(&unknown, a.now), Err(ChainFault::Site(_))));
    let alice = "novacron://site-a/caller/alice".parse().expect("an identity");
    let caller = a.callers.issue(&alice, None, false, 30, None, a.now).expect("issued").certificate;
    assert!(matches!(ask(&caller, a.now), Err(ChainFault::Holder(_))));
    assert!(matches!(ask(&a.gateways.certificate, a.now), Err(ChainFault::Holder(_))));
    a.gateways.revoke(&Which::Serial(leaf.serial.clone()), Why::KeyCompromise, None, a.now).expect("revoked");
    let lists = [a.gateways.revocation_list().expect("one")];
    assert_eq!(verify(&leaf, &authorities, &lists, Usage::Client, a.now), Err(ChainFault::Revoked));
}

/// Runs `openssl`; `None`, with its reason on stderr, where this host has none.
fn openssl(args: &[&str], paths: &[&Path]) -> Option<String> {
    let mut command = Command::new("openssl");
    let output = match command.args(args).args(paths).output() {
        Ok(output) => output,
        Err(why) => {
            eprintln!("skipped: openssl cannot be run as a witness here ({why})");
            return None;
        }
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn openssl_agrees() {
    let keys = Keys::of("site-a");
    let trust = keys.trust("gw-1");
    let root = keys.dir.path().join("keys/gateway/authority.crt");
    let (crt, key) = (trust.folder().join("gateway.crt"), trust.folder().join("gateway.key"));
    let list = keys.gateways.revocation_list_path();
    let verify = |purpose| {
        let options = ["verify", "-x509_strict", "-crl_check", "-purpose", purpose];
        openssl(&options, &[Path::new("-CAfile"), &root, Path::new("-CRLfile"), &list, &crt])
    };
    let Some(said) = verify("sslserver") else { return };
    assert!(said.contains(": OK"), "{said}");
    assert!(verify("sslclient").expect("it ran before").contains(": OK"));
    let text =
        openssl(&["x509", "-text", "-noout", "-fingerprint", "-sha256", "-in"], &[&crt]).expect("text");
    let own = trust.own().expect("installed");
    for expected in [
        "URI:novacron://site-a/gateway/gw-1",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "CA:FALSE",
        &own.fingerprint.to_string(),
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let said = openssl(&["pkey", "-noout", "-text", "-in"], &[&key]).expect("a key");
    assert!(said.contains("prime256v1"), "{said}");

    let serial = Which::Serial(own.serial);
    keys.gateways.revoke(&serial, Why::KeyCompromise, None, keys.now).expect("revoked");
    let said = verify("sslserver").expect("it ran before");
    assert!(said.contains("certificate revoked"), "{said}");
    let said = openssl(&["crl", "-noout", "-text", "-in"], &[&list]).expect("a list");
    assert!(said.contains("Key Compromise"), "{said}");
}

#[test]
fn openssl_opens_an_encrypted_key_and_its_requests_are_taken() {
    let dir = tempfile::tempdir().expect("a folder");
    let now = SystemTime::now();
    let right = passphrase("correct horse battery");
    let ledgers = Ledger::init(dir.path(), &site("site-a"), 365, Some(&right), now).expect("made");
    let key = dir.path().join("gateway/authority.key");
    let options = ["pkey", "-noout", "-text", "-passin", "pass:correct horse battery", "-in"];
    let Some(said) = openssl(&options, &[&key]) else { return };
    assert!(said.contains("prime256v1"), "{said}");

    // A request with an Ed25519 key that another program made, as a hardware token's would be.
    let (theirs, request) = (dir.path().join("theirs.key"), dir.path().join("theirs.csr"));
    openssl(&["genpkey", "-algorithm", "ed25519", "-out"], &[&theirs]).expect("a key");
    let name = "subjectAltName=URI:novacron://site-a/gateway/gw-1";
    let options = ["req", "-new", "-subj", "/CN=anything", "-addext", name];
    let said = openssl(&options, &[Path::new("-key"), &theirs, Path::new("-out"), &request]).expect("it ran");
    let text = std::fs::read_to_string(&request).unwrap_or_else(|why| panic!("{why}: {said}"));
    let read = Request::read(&text).expect("read");
    let issued = ledgers[0].issue(&read.identity, Some(&read), false, 30, Some(&right), now).expect("issued");
    assert_eq!(issued.certificate.key, "Ed25519");
}
