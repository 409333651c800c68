//! What can run here, and what is missing for the rest.

use std::env;
use std::path::Path;

use novacron_testbed::{Workload, artefact};

use crate::contender::{Contender, Kind};
use crate::scenario::{GuestPart, Load, Scenario};
use crate::workload;

/// What this machine has. Each `Err` says in one sentence what is missing.
#[derive(Clone, Debug)]
pub struct Ability {
    /// Namespaces and links between them.
    pub lab: Result<(), String>,
    /// Guests.
    pub qemu: Result<(), String>,
    /// The disk image that workloads of real programs run from.
    pub image: Result<(), String>,
    /// Our gateways and novactl.
    pub gateways: Result<(), String>,
    /// The relay.
    pub socat: Result<(), String>,
    /// The compressor.
    pub zstd: Result<(), String>,
    /// What measures links.
    pub iperf3: Result<(), String>,
}

impl Ability {
    /// Looks around.
    pub fn here() -> Self {
        let built = |name: &str| artefact::binary(name).map(drop).map_err(|error| format!("{error:#}"));
        let lab = novacron_lab::available().and_then(|()| built("novacron-lab"));
        Self {
            lab: lab.map_err(|missing| format!("no lab: {missing}")),
            qemu: on_path("qemu-system-x86_64", "make setup").and_then(|()| guest()),
            image: artefact::image().map(drop).map_err(|error| format!("no disk image: {error:#}")),
            gateways: built("novacron-gateway").and_then(|()| built("novactl")),
            socat: on_path("socat", "make setup"),
            zstd: on_path("zstd", "make setup"),
            iperf3: on_path("iperf3", "make setup"),
        }
    }

    /// What a scenario lacks whoever is measured; `None`: nothing.
    pub fn missing_for(&self, scenario: &Scenario) -> Option<&str> {
        let lab = scenario.link.as_ref().and_then(|_| error(&self.lab));
        let guest = match &scenario.load {
            // A link alone can be measured without any guest.
            Load::Guest(_) if scenario.contenders.iter().all(|one| one.kind == Kind::Iperf3) => None,
            Load::Guest(guest) => self.missing_for_guest(guest),
            Load::Stream(stream) => stream.of.as_ref().and_then(|guest| self.missing_for_guest(guest)),
        };
        lab.or(guest)
    }

    fn missing_for_guest(&self, guest: &GuestPart) -> Option<&str> {
        let needs_image = workload::of(guest).is_ok_and(Workload::needs_image);
        error(&self.qemu).or(error(&self.image).filter(|_| needs_image))
    }

    /// What a contender lacks; `None`: nothing.
    pub fn missing_of(&self, contender: &Contender) -> Option<&str> {
        self.missing_of_kind(contender.kind)
    }

    /// The same of any contender of a kind.
    pub fn missing_of_kind(&self, kind: Kind) -> Option<&str> {
        match kind {
            Kind::Novacron => error(&self.gateways),
            Kind::Qemu => None,
            Kind::Socat => error(&self.socat),
            Kind::ZstdLong => error(&self.zstd).or(error(&self.socat)),
            Kind::Iperf3 => error(&self.iperf3),
        }
    }

    /// What is missing, each once, and what for.
    pub fn lacks(&self) -> Vec<&str> {
        let all = [&self.lab, &self.qemu, &self.image, &self.gateways, &self.socat, &self.zstd, &self.iperf3];
        let mut lacks: Vec<&str> = all.into_iter().filter_map(error).collect();
        lacks.dedup();
        lacks
    }
}

fn error(of: &Result<(), String>) -> Option<&str> {
    of.as_ref().err().map(String::as_str)
}

fn guest() -> Result<(), String> {
    artefact::kernel()
        .and_then(|_| artefact::initrd())
        .map(drop)
        .map_err(|error| format!("no guest: {error:#}"))
}

fn on_path(program: &str, target: &str) -> Result<(), String> {
    let paths = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&paths).any(|directory| is_program(&directory.join(program)));
    if found { Ok(()) } else { Err(format!("{program} is not here: run `{target}`")) }
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ability() -> Ability {
        let ok = Ok(());
        Ability {
            lab: ok.clone(),
            qemu: ok.clone(),
            image: ok.clone(),
            gateways: ok.clone(),
            socat: ok.clone(),
            zstd: ok.clone(),
            iperf3: ok,
        }
    }

    fn scenario(rest: &str) -> Scenario {
        let text = format!(
            "why = \"x\"\ncontenders = [\"tcp\"]\nrepetitions = 1\ntime_limit_s = 1\n\
             [guest]\nworkload = \"dirty\"\nmemory_mib = 256\n{rest}"
        );
        Scenario::parse(&text, Path::new("x.toml")).unwrap()
    }

    #[test]
    fn without_root_loopback_still_runs() {
        let ability = Ability { lab: Err("no lab: not root".into()), ..ability() };
        assert_eq!(ability.missing_for(&scenario("[link]\n")), Some("no lab: not root"));
        assert_eq!(ability.missing_for(&scenario("")), None);
        assert_eq!(ability.lacks(), ["no lab: not root"]);
    }

    #[test]
    fn without_qemu_no_guest_moves() {
        let ability = Ability { qemu: Err("no QEMU".into()), ..ability() };
        assert_eq!(ability.missing_for(&scenario("")), Some("no QEMU"));
    }

    #[test]
    fn without_the_image_only_workloads_that_run_from_it_are_missing() {
        let ability = Ability { image: Err("no disk image".into()), ..ability() };
        assert_eq!(ability.missing_for(&scenario("")), None);
        let mut redis = scenario("");
        if let Load::Guest(guest) = &mut redis.load {
            guest.workload = "redis".into();
        }
        assert_eq!(ability.missing_for(&redis), Some("no disk image"));
    }

    #[test]
    fn programs_are_looked_for_where_the_shell_does() {
        assert_eq!(on_path("sh", "x"), Ok(()));
        assert!(on_path("novacron-not-there", "make x").unwrap_err().contains("make x"));
    }
}
