//! `pair`: two sites come to trust each other's gateways. What is said is [`novacron_keys::pairing`]'s; here are the
//! socket and the two people.

pub(crate) mod args;
mod link;

use std::io::{BufRead, ErrorKind};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use novacron_control_api::{Endpoint, PeerPattern, PeerRule};
use novacron_keys::pairing::{Accepting, Agreed, Code, Offer, Offered, PairingError};
use novacron_keys::store::{self, Mode};
use novacron_keys::{Bundle, Fingerprint, RevocationList, Trust};
use serde_json::{Value, json};

use self::args::{
    AcceptArgs, ExportArgs, ImportArgs, OfferArgs, PairArgs, PairCommand, RevocationsArgs, RuleArgs,
};
use self::link::{Link, LinkError};
use crate::keys::{Failed, Said, either};
use crate::limits::{PAIR_ANSWER, POLL};

/// Runs one.
pub(crate) fn run(args: &PairArgs) -> Result<Said, Failed> {
    match &args.command {
        PairCommand::Offer(args) => offer(args),
        PairCommand::Accept(args) => accept(args),
        PairCommand::Export(args) => export(args),
        PairCommand::Import(args) => import(args),
        PairCommand::Revocations(args) => revocations(args),
    }
}

const NOTHING: &str = "nothing was changed here, and nobody new is trusted";

fn failed(what: &str, why: impl std::fmt::Display) -> Failed {
    Failed::Words(format!("{what}: {why}; {NOTHING}"))
}

fn rule(bundle: &Bundle, args: &RuleArgs) -> Result<PeerRule, Failed> {
    let identity = PeerPattern::whole_site(bundle.site().as_str()).map_err(|why| failed("no rule", why))?;
    Ok(PeerRule {
        identity,
        tenants: args.tenants.clone(),
        directions: args.directions.iter().map(|direction| (*direction).into()).collect(),
    })
}

/// Both sites with their fingerprints, for two people to compare.
fn shown(own: &Bundle, peer: &Bundle) -> String {
    let side = |name: &str, bundle: &Bundle| {
        let prints: Vec<String> = bundle.fingerprints().iter().map(ToString::to_string).collect();
        format!("  {name} {:<20} {}\n", bundle.site(), prints.join("\n                             "))
    };
    format!("{}{}", side("this site ", own), side("other site", peer))
}

/// Asks on the terminal. Only a written yes is one.
fn agreed(own: &Bundle, peer: &Bundle, yes: bool, trust: &Trust) -> bool {
    crate::tell(&format!("the other site has the code\n{}", shown(own, peer)));
    let known = trust.authorities().unwrap_or_default();
    let known: Vec<_> = known
        .iter()
        .filter(|one| one.authority().is_some_and(|name| name.site == *peer.site()))
        .filter(|one| !peer.fingerprints().contains(&one.fingerprint))
        .collect();
    for old in known {
        crate::tell(&format!(
            "note: {} is trusted already with another authority, SHA-256 {}, which stays trusted\n",
            peer.site(),
            old.fingerprint
        ));
    }
    if yes {
        return true;
    }
    crate::tell("does the other side's screen show the same two? type yes: ");
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.is_ok() && answer.trim() == "yes"
}

fn paired(own: &Bundle, peer: &Bundle, rule: &PeerRule, added: bool, trust: &Trust) -> (Value, String) {
    let value = json!({
        "event": "paired",
        "site": own.site(),
        "peer": peer.site(),
        "fingerprints": own.fingerprints(),
        "peer_fingerprints": peer.fingerprints(),
        "rule": rule,
        "rule_added": added,
        "identity": trust.folder(),
    });
    let ways: Vec<String> = rule.directions.iter().map(ToString::to_string).collect();
    let kept = if added { "" } else { " (peers.toml named them already and stays as it is)" };
    let words = format!(
        "paired: {} trusts gateways of {} now\n{}allowed: guests {}, tenants {}{kept}\n\
         other gateways of this site: copy authorities.pem, revoked.pem and peers.toml from {}\n",
        own.site(),
        peer.site(),
        shown(own, peer),
        ways.join(" and "),
        rule.tenants.join(", "),
        trust.folder().display()
    );
    (value, words)
}

fn offer(args: &OfferArgs) -> Result<Said, Failed> {
    let (trust, now) = (Trust::at(&args.folder.identity), SystemTime::now());
    let own = trust.bundle(now)?;
    let (listener, at) = listen(&args.listen)?;
    let code = Code::make().map_err(|why| failed("no code", why))?;
    match &args.code_file {
        Some(file) => store::write(file, format!("{}\n", &*code.to_text()).as_bytes(), Mode::Secret)?,
        None => crate::tell(&format!("one-use code, for {}:  {}\n", args.lifetime, &*code.to_text())),
    }
    crate::tell(&format!(
        "site {} SHA-256 {}\nwaiting at {at}; there: novactl pair accept --connect {at}\n",
        own.site(),
        prints(&own)
    ));
    if args.folder.json {
        crate::print(&format!(
            "{}\n",
            json!({ "event": "offered", "site": own.site(), "listen": at, "fingerprints": own.fingerprints() })
        ));
    }
    let lifetime = Duration::from(args.lifetime);
    let mut offer = Offer::new(code, own.clone(), now + lifetime);
    let deadline = Instant::now() + lifetime;
    let result = serve(&listener, &mut offer, deadline, |offered, link| {
        let peer = offered.peer.clone();
        let yes = agreed(&own, &peer, args.yes, &trust);
        let rule = rule(&peer, &args.rule)?;
        let lost = |why: LinkError| failed("the other side did not say yes in time", why);
        let five = link.receive(deadline.saturating_duration_since(Instant::now())).map_err(lost)?;
        let agreed: Agreed = offered.agreed(&five).map_err(|why| failed("not paired", why))?;
        if !yes {
            let six = agreed.conclude(false).map_err(|why| failed("not paired", why))?;
            let _ = link.send(&six);
            return Err(failed("not paired", "this side did not say yes"));
        }
        let added = trust.pair(&peer, &rule, SystemTime::now())?;
        let (value, words) = paired(&own, &peer, &rule, added, &trust);
        // Written here: from now on this side trusts the other, whatever becomes of the last message.
        let six = agreed.conclude(true);
        if six.map_err(|_| LinkError::Closed).and_then(|six| link.send(&six)).is_err() {
            crate::tell(
                "the other side went away before it heard that this side said yes: it may have to pair again\n",
            );
        }
        Ok(either(args.folder.json, &value, words))
    });
    if let Some(file) = &args.code_file {
        let _ = std::fs::remove_file(file);
    }
    result
}

fn prints(bundle: &Bundle) -> String {
    bundle.fingerprints().iter().map(Fingerprint::to_string).collect::<Vec<_>>().join(" ")
}

fn listen(endpoint: &Endpoint) -> Result<(TcpListener, Endpoint), Failed> {
    let Endpoint::Tcp { host, port } = endpoint else {
        return Err(Failed::Words("sites meet over tcp".into()));
    };
    let refused = |why: std::io::Error| failed(&format!("cannot listen at {endpoint}"), why);
    let listener = TcpListener::bind((host.as_str(), *port)).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    let at = Endpoint::tcp(listener.local_addr().map_err(refused)?);
    Ok((listener, at))
}

/// Takes connections, one at a time, until one has the code or the offer ends.
fn serve(
    listener: &TcpListener,
    offer: &mut Offer,
    deadline: Instant,
    paired: impl FnOnce(Offered, &mut Link) -> Result<Said, Failed>,
) -> Result<Said, Failed> {
    loop {
        offer.check(SystemTime::now()).map_err(|why| failed("not paired", why))?;
        if Instant::now() >= deadline {
            return Err(failed("not paired", PairingError::Expired));
        }
        let (stream, from) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(why) if why.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(POLL);
                continue;
            }
            Err(why) => return Err(failed("not paired", why)),
        };
        if stream.set_nonblocking(false).is_err() {
            continue;
        }
        let mut link = Link::new(stream);
        match greet(&mut link, offer) {
            Ok(offered) => return paired(offered, &mut link),
            Err(why) => crate::tell(&format!("{from}: {why}; still waiting\n")),
        }
    }
}

/// Messages 1 to 4, within a bounded time: whoever has no code does not keep the next one waiting for long.
fn greet(link: &mut Link, offer: &mut Offer) -> Result<Offered, String> {
    let one = link.receive(PAIR_ANSWER).map_err(|why| why.to_string())?;
    let (greeted, two) = offer.greet(&one, SystemTime::now()).map_err(|why| why.to_string())?;
    link.send(&two).map_err(|why| why.to_string())?;
    let three = link.receive(PAIR_ANSWER).map_err(|why| why.to_string())?;
    let (offered, four) = greeted.prove(offer, &three, SystemTime::now()).map_err(|why| why.to_string())?;
    link.send(&four).map_err(|why| why.to_string())?;
    Ok(offered)
}

fn accept(args: &AcceptArgs) -> Result<Said, Failed> {
    let trust = Trust::at(&args.folder.identity);
    let own = trust.bundle(SystemTime::now())?;
    let code = read_code(args.code_file.as_deref())?;
    let mut link =
        Link::dial(&args.connect).map_err(|why| failed(&format!("{} does not answer", args.connect), why))?;
    let no = |why: PairingError| failed("not paired", why);
    let lost = |why: LinkError| {
        failed("not paired", format!("{why} (is the code right, unused and in time? its side says why)"))
    };
    let (accepting, one) = Accepting::new(code, own.clone()).map_err(no)?;
    link.send(&one).map_err(lost)?;
    let (shown, three) = accepting.show(&link.receive(PAIR_ANSWER).map_err(lost)?).map_err(no)?;
    link.send(&three).map_err(lost)?;
    let compared = shown.compare(&link.receive(PAIR_ANSWER).map_err(lost)?, SystemTime::now()).map_err(no)?;
    let peer = compared.peer.clone();
    let rule = rule(&peer, &args.rule)?;
    let yes = agreed(&own, &peer, args.yes, &trust);
    let (decided, five) = compared.decide(yes).map_err(no)?;
    link.send(&five).map_err(lost)?;
    if !yes {
        return Err(failed("not paired", "this side did not say yes"));
    }
    crate::tell("waiting for the other side's yes\n");
    let six = link.receive(novacron_keys::limits::PAIRING_LIFETIME_MAX).map_err(|why| {
        failed(
            "this side's yes was sent, the other side's did not come",
            format!(
                "{why}; the other side may trust this one already: pair again, or let it remove the entry"
            ),
        )
    })?;
    let peer = decided.concluded(&six).map_err(no)?;
    let added = trust.pair(&peer, &rule, SystemTime::now())?;
    let (value, words) = paired(&own, &peer, &rule, added, &trust);
    Ok(either(args.folder.json, &value, words))
}

fn read_code(file: Option<&Path>) -> Result<Code, Failed> {
    let typed = |text: &str| text.parse::<Code>().map_err(|why| Failed::Words(why.to_string()));
    if let Some(file) = file {
        return typed(&String::from_utf8_lossy(store::read_secret(file)?.expose()));
    }
    crate::tell("the code that the other site's operator told you: ");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|why| failed("no code", why))?;
    typed(&line)
}

fn export(args: &ExportArgs) -> Result<Said, Failed> {
    let bundle = Trust::at(&args.folder.identity).bundle(SystemTime::now())?;
    store::write(&args.out, bundle.to_pem().as_bytes(), Mode::Public)?;
    let value = json!({ "site": bundle.site(), "out": args.out, "fingerprints": bundle.fingerprints() });
    let words = format!(
        "site {} written to {}\ntell the other site's operator over another way than the file goes:\nSHA-256 {}\n\
         next, there: novactl pair import FILE --fingerprint SHA-256\n",
        bundle.site(),
        args.out.display(),
        prints(&bundle)
    );
    Ok(either(args.folder.json, &value, words))
}

fn import(args: &ImportArgs) -> Result<Said, Failed> {
    let (trust, now) = (Trust::at(&args.folder.identity), SystemTime::now());
    let own = trust.bundle(now)?;
    let name = args.file.display().to_string();
    let peer = Bundle::from_pem(&store::read(&args.file)?, now).map_err(|why| failed(&name, why))?;
    let mut told = args.fingerprint.clone();
    let mut held = peer.fingerprints();
    told.sort_unstable();
    held.sort_unstable();
    if told != held {
        let why = format!("it holds SHA-256 {}, which is not what --fingerprint says", prints(&peer));
        return Err(failed(&name, why));
    }
    let rule = rule(&peer, &args.rule)?;
    let added = trust.pair(&peer, &rule, now)?;
    let (value, words) = paired(&own, &peer, &rule, added, &trust);
    let words = words + "the other site must import this site's file too: novactl pair export\n";
    Ok(either(args.folder.json, &value, words))
}

fn revocations(args: &RevocationsArgs) -> Result<Said, Failed> {
    let name = args.file.display().to_string();
    let lists = RevocationList::from_pem(&store::read(&args.file)?).map_err(|why| failed(&name, why))?;
    let count = lists.len();
    if count == 0 {
        return Err(failed(&name, "it holds no revocation list"));
    }
    let newer = Trust::at(&args.folder.identity).revoke(lists)?;
    let value = json!({ "lists": count, "newer": newer, "identity": args.folder.identity });
    let words = format!(
        "{newer} of {count} lists are newer and were taken; a gateway that runs takes them by itself\n"
    );
    Ok(either(args.folder.json, &value, words))
}
