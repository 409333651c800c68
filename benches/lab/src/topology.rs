//! Sites and the links between them, as a file says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::conditions::{Change, Conditions};
use crate::limits::{LINKS_MAX, MTU_MAX, MTU_MIN, NAME_CHARS_MAX, SITES_MAX, TOPOLOGY_BYTES_MAX};

/// Topologies that the program brings along, by name.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("two-sites", include_str!("../topologies/two-sites.toml")),
    ("three-sites", include_str!("../topologies/three-sites.toml")),
    ("slow-site", include_str!("../topologies/slow-site.toml")),
];

/// Which sites there are and how they are joined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    /// What it is called.
    pub name: String,
    /// In the order of the file.
    pub sites: Vec<SiteSpec>,
    /// In the order of the file.
    pub links: Vec<LinkSpec>,
}

/// A site: one network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteSpec {
    /// Letters, digits and hyphens.
    pub name: String,
    /// Kernel settings of its namespace, all under `net.`.
    pub sysctl: BTreeMap<String, String>,
    /// What TCP there uses unless a socket asks for another; `None`: what the machine uses. A setting would not do: the
    /// kernel takes only those that the machine allows everybody as a namespace's default.
    #[serde(default)]
    pub congestion_control: Option<String>,
}

/// A link between two sites.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkSpec {
    /// Its name and that of its device at both ends.
    pub name: String,
    /// One end.
    pub from: String,
    /// The other end.
    pub to: String,
    /// Most bytes in a frame behind its 14-byte header.
    pub mtu: u16,
    /// What happens to frames from `from` to `to`.
    pub forward: Conditions,
    /// What happens to frames from `to` to `from`.
    pub back: Conditions,
}

impl Topology {
    /// Two sites `a` and `b` with one link `wan`, the same both ways.
    pub fn two_sites(conditions: &Conditions) -> Self {
        let site = |name: &str| SiteSpec {
            name: name.to_owned(),
            sysctl: BTreeMap::new(),
            congestion_control: None,
        };
        let link = LinkSpec {
            name: "wan".to_owned(),
            from: "a".to_owned(),
            to: "b".to_owned(),
            mtu: 1500,
            forward: conditions.clone(),
            back: conditions.clone(),
        };
        Self { name: "two-sites".to_owned(), sites: vec![site("a"), site("b")], links: vec![link] }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// With the file's name, the line, and what was expected there.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("opening the topology {}", path.display()))?;
        let mut text = String::new();
        let read = file.take(TOPOLOGY_BYTES_MAX + 1).read_to_string(&mut text);
        read.with_context(|| format!("reading the topology {}", path.display()))?;
        ensure!(
            text.len() as u64 <= TOPOLOGY_BYTES_MAX,
            "{}: longer than {TOPOLOGY_BYTES_MAX} bytes, expected a topology",
            path.display()
        );
        Self::parse(&text, &path.display().to_string())
    }

    /// One that the program brings along, or a file.
    ///
    /// # Errors
    /// Those of [`Topology::read`].
    pub fn find(name_or_path: &str) -> Result<Self> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
            return Self::parse(text, name);
        }
        let path = Path::new(name_or_path);
        if !path.exists() {
            let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            bail!(
                "there is no file {name_or_path}, and no topology of that name; expected a file or one of {}",
                names.join(", ")
            );
        }
        Self::read(path)
    }

    /// Reads a topology; `file_name` stands in messages.
    ///
    /// # Errors
    /// With the file's name, the line, and what was expected there.
    pub fn parse(text: &str, file_name: &str) -> Result<Self> {
        let at = |span: Option<Range<usize>>, message: &str| {
            let start = span.map_or(0, |span| span.start).min(text.len());
            let line = text.as_bytes()[..start].iter().filter(|byte| **byte == b'\n').count() + 1;
            anyhow::anyhow!("{file_name}:{line}: {message}")
        };
        let written: Written =
            toml::from_str(text).map_err(|error| at(error.span(), error.message().trim()))?;
        written.check().map_err(|(span, message)| at(Some(span), &message))
    }

    /// The link of this name.
    ///
    /// # Errors
    /// When there is none: says which there are.
    pub fn link(&self, name: &str) -> Result<&LinkSpec> {
        self.links.iter().find(|link| link.name == name).with_context(|| {
            let names: Vec<&str> = self.links.iter().map(|link| link.name.as_str()).collect();
            format!("there is no link {name:?} in {}; expected one of {}", self.name, names.join(", "))
        })
    }
}

// ---- as it is written -----------------------------------------------------------------------------------------

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Spanned<String>,
    #[serde(rename = "site")]
    sites: Vec<WrittenSite>,
    #[serde(rename = "link")]
    links: Vec<Spanned<WrittenLink>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSite {
    name: Spanned<String>,
    #[serde(default)]
    sysctl: BTreeMap<Spanned<String>, String>,
    congestion_control: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLink {
    name: Spanned<String>,
    from: Spanned<String>,
    to: Spanned<String>,
    mtu: Option<Spanned<u16>>,
    both: Option<Spanned<Change>>,
    forward: Option<Spanned<Change>>,
    back: Option<Spanned<Change>>,
}

type Mistake = (Range<usize>, String);

impl Written {
    fn check(self) -> Result<Topology, Mistake> {
        named(&self.name, "a topology")?;
        let mut sites = Vec::new();
        let mut names = BTreeSet::new();
        for site in self.sites {
            named(&site.name, "a site")?;
            if !names.insert(site.name.get_ref().clone()) {
                return Err((site.name.span(), format!("site {:?} stands here twice", site.name.get_ref())));
            }
            if sites.len() == SITES_MAX {
                return Err((site.name.span(), format!("expected at most {SITES_MAX} sites")));
            }
            for name in site.sysctl.keys() {
                let name_is_one = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
                let text = name.get_ref();
                if !text.starts_with("net.") || !text.chars().all(name_is_one) || text.contains("..") {
                    let message = format!("{text:?} is no setting of a namespace, expected net.…");
                    return Err((name.span(), message));
                }
            }
            let sysctl = site.sysctl.into_iter().map(|(name, value)| (name.into_inner(), value)).collect();
            let congestion_control = match site.congestion_control {
                Some(control) if is_congestion_control(control.get_ref()) => Some(control.into_inner()),
                Some(control) => {
                    let message = format!(
                        "{:?} is no congestion control, expected one as cubic or bbr",
                        control.get_ref()
                    );
                    return Err((control.span(), message));
                }
                None => None,
            };
            sites.push(SiteSpec { name: site.name.into_inner(), sysctl, congestion_control });
        }
        if sites.len() < 2 {
            return Err((self.name.span(), "expected at least two [[site]]".to_owned()));
        }
        let mut links: Vec<LinkSpec> = Vec::new();
        for link in self.links {
            if links.len() == LINKS_MAX {
                return Err((link.span(), format!("expected at most {LINKS_MAX} links")));
            }
            let link = link.into_inner();
            named(&link.name, "a link")?;
            let name = link.name.get_ref();
            if name == "lo" || links.iter().any(|other| other.name == *name) {
                let message = format!("{name:?} is taken, expected a name that no other link or device has");
                return Err((link.name.span(), message));
            }
            for end in [&link.from, &link.to] {
                if !names.contains(end.get_ref()) {
                    let known: Vec<&str> = names.iter().map(String::as_str).collect();
                    let message =
                        format!("there is no site {:?}, expected one of {}", end.get_ref(), known.join(", "));
                    return Err((end.span(), message));
                }
            }
            if link.from.get_ref() == link.to.get_ref() {
                return Err((link.to.span(), "a link joins two different sites".to_owned()));
            }
            links.push(link.resolve()?);
        }
        let topology = Topology { name: self.name.into_inner(), sites, links };
        if let Some(alone) = topology.sites.iter().find(|site| !topology.joined().contains(&site.name)) {
            return Err((
                0..0,
                format!("site {:?} cannot be reached, expected a [[link]] to it", alone.name),
            ));
        }
        Ok(topology)
    }
}

impl WrittenLink {
    fn resolve(self) -> Result<LinkSpec, Mistake> {
        let mtu = self.mtu.as_ref().map_or(1500, |mtu| *mtu.get_ref());
        if let Some(written) = self.mtu.filter(|_| !(MTU_MIN..=MTU_MAX).contains(&mtu)) {
            return Err((written.span(), format!("mtu is {mtu}, expected {MTU_MIN} to {MTU_MAX}")));
        }
        let mut forward = Conditions::default();
        let mut back = Conditions::default();
        let apply = |change: Option<Spanned<Change>>, to: &mut [&mut Conditions]| {
            let Some(change) = change else { return Ok(()) };
            let span = change.span();
            if change.get_ref().queue_ms.is_some() && change.get_ref().queue_kb.is_some() {
                return Err((span, "expected queue_ms or queue_kb, not both".to_owned()));
            }
            for conditions in to {
                **conditions = conditions.with(change.get_ref());
                conditions.check().map_err(|message| (span.clone(), message))?;
            }
            Ok(())
        };
        apply(self.both, &mut [&mut forward, &mut back])?;
        apply(self.forward, &mut [&mut forward])?;
        apply(self.back, &mut [&mut back])?;
        let (name, from, to) = (self.name.into_inner(), self.from.into_inner(), self.to.into_inner());
        Ok(LinkSpec { name, from, to, mtu, forward, back })
    }
}

impl Topology {
    /// Names of sites that can be reached from the first.
    fn joined(&self) -> BTreeSet<String> {
        let mut reached: BTreeSet<String> =
            self.sites.first().map(|site| site.name.clone()).into_iter().collect();
        // Each round reaches at least one more, or none.
        for _ in &self.sites {
            for link in &self.links {
                if reached.contains(&link.from) || reached.contains(&link.to) {
                    reached.insert(link.from.clone());
                    reached.insert(link.to.clone());
                }
            }
        }
        reached
    }

    /// Checks a topology that was not read from a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<()> {
        let names: BTreeSet<&str> = self.sites.iter().map(|site| site.name.as_str()).collect();
        ensure!(names.len() == self.sites.len(), "two sites of {} have one name", self.name);
        ensure!((2..=SITES_MAX).contains(&names.len()), "expected 2 to {SITES_MAX} sites");
        ensure!((1..=LINKS_MAX).contains(&self.links.len()), "expected 1 to {LINKS_MAX} links");
        let devices: BTreeSet<&str> = self.links.iter().map(|link| link.name.as_str()).collect();
        ensure!(devices.len() == self.links.len(), "two links of {} have one name", self.name);
        for name in names.iter().chain(&devices) {
            ensure!(is_name(name) && *name != "lo", "{name:?} is no name: expected {NAME_FORM}");
        }
        for control in self.sites.iter().filter_map(|site| site.congestion_control.as_deref()) {
            ensure!(is_congestion_control(control), "{control:?} is no congestion control");
        }
        for link in &self.links {
            ensure!(
                names.contains(link.from.as_str())
                    && names.contains(link.to.as_str())
                    && link.from != link.to,
                "link {} must join two sites of the topology",
                link.name
            );
            ensure!(
                (MTU_MIN..=MTU_MAX).contains(&link.mtu),
                "mtu is {}, expected {MTU_MIN} to {MTU_MAX}",
                link.mtu
            );
            for conditions in [&link.forward, &link.back] {
                conditions
                    .check()
                    .map_err(anyhow::Error::msg)
                    .with_context(|| format!("link {}", link.name))?;
            }
        }
        ensure!(self.joined().len() == names.len(), "not every site of {} can be reached", self.name);
        Ok(())
    }
}

const NAME_FORM: &str = "1 to 12 small letters, digits and hyphens, a letter or digit first";
const _: () = assert!(NAME_CHARS_MAX == 12);

fn is_name(name: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&name.len())
        && !name.starts_with('-')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// Whether it can be one: the kernel knows which there are.
fn is_congestion_control(name: &str) -> bool {
    (1..16).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn named(name: &Spanned<String>, what: &str) -> Result<(), Mistake> {
    if is_name(name.get_ref()) {
        return Ok(());
    }
    Err((name.span(), format!("{:?} is no name for {what}, expected {NAME_FORM}", name.get_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Topology::parse(text, "x.toml").unwrap_err().to_string()
    }

    const SITES: &str = "name = 't'\n[[site]]\nname = 'a'\n[[site]]\nname = 'b'\n";

    #[test]
    fn the_ones_brought_along_are_good() {
        for (name, text) in BUILT_IN {
            let topology = Topology::parse(text, name).unwrap();
            assert_eq!(topology.name, *name);
            topology.check().unwrap();
        }
    }

    #[test]
    fn directions_override_what_holds_for_both() {
        let link = "[[link]]\nname='wan'\nfrom='a'\nto='b'\nboth={rate_mbit=10, delay_ms=5, queue_ms=7}\n\
                    forward={rate_mbit=20, queue_kb=3}\nback={loss_percent=1, rate_mbit=0}";
        let topology = Topology::parse(&format!("{SITES}{link}"), "x").unwrap();
        let link = topology.link("wan").unwrap();
        assert_eq!((link.forward.rate_mbit, link.forward.delay_ms), (Some(20.0), 5.0));
        assert_eq!((link.back.rate_mbit, link.back.loss_percent), (None, 1.0));
        assert_eq!(link.forward.queue, crate::Queue::Kb(3.0));
        assert_eq!(link.back.queue, crate::Queue::Ms(7.0));
    }

    #[test]
    fn a_mistake_is_refused_with_file_line_and_what_was_expected() {
        let link =
            |rest: &str| refused(&format!("{SITES}[[link]]\nname = 'wan'\nfrom = 'a'\nto = 'b'\n{rest}"));
        for (said, parts) in [
            (link("both = {}\nloss = 3"), ["x.toml:11:", "loss", "expected"]),
            (link("[link.both]\n\nloss_percent = 120"), ["x.toml:12:", "120", "0 to 100"]),
            (link("[link.back]\ndelay_ms = -1"), ["x.toml:11:", "-1", "0 to 10000"]),
            (link("both = { delay_ms = 'x' }"), ["x.toml:10:", "string", "expected"]),
            (link("both = { queue_ms = 1, queue_kb = 1 }"), ["x.toml:10:", "queue_kb", "expected"]),
            (link("mtu = 100"), ["x.toml:10:", "mtu is 100", "expected 1280"]),
            (link("both = {\n"), ["x.toml:", "", ""]),
            (
                refused(&format!("{SITES}[[link]]\nname='wan'\nfrom='a'\nto='c'")),
                ["x.toml:9:", "\"c\"", "a, b"],
            ),
            (
                refused(&format!("{SITES}[[link]]\nname='w!'\nfrom='a'\nto='b'")),
                ["x.toml:7:", "w!", "letters"],
            ),
            (
                refused(&format!("{SITES}[[site]]\nname='b'\n[[link]]\nname='w'\nfrom='a'\nto='b'")),
                ["x.toml:7:", "twice", ""],
            ),
            (
                refused(&format!("{SITES}[[link]]\nname='w'\nfrom='a'\nto='a'")),
                ["x.toml:9:", "two different", ""],
            ),
            (refused("name = 'only'\nsite = []\nlink = []"), ["x.toml:1:", "two [[site]]", "expected"]),
            (refused(SITES), ["x.toml:1:", "link", "missing"]),
        ] {
            for part in parts {
                assert!(said.contains(part), "{said:?} lacks {part:?}");
            }
        }
    }

    #[test]
    fn a_site_that_nothing_leads_to_is_refused() {
        let said = refused(&format!("{SITES}[[site]]\nname='c'\n[[link]]\nname='w'\nfrom='a'\nto='b'"));
        assert!(said.contains("\"c\"") && said.contains("[[link]]"), "{said}");
    }

    #[test]
    fn settings_outside_of_the_namespace_are_refused() {
        let said = refused(
            "name='t'\n[[site]]\nname='a'\nsysctl={\"kernel.panic\"=\"1\"}\n[[site]]\nname='b'\n[[link]]\nname='w'\nfrom='a'\nto='b'",
        );
        assert!(said.starts_with("x.toml:4:") && said.contains("net."), "{said}");
        let said = refused(
            "name='t'\n[[site]]\nname='a'\ncongestion_control='cu bic'\n[[site]]\nname='b'\n[[link]]\nname='w'\nfrom='a'\nto='b'",
        );
        assert!(said.starts_with("x.toml:4:") && said.contains("cubic or bbr"), "{said}");
    }
}
