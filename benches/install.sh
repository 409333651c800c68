#!/usr/bin/env bash
# Installs what building, testing and demonstrating NovaCron needs on Debian or Ubuntu, and fetches the kernel
# that the test guest boots. Says nothing and changes nothing when all of it is there.
#
#   benches/install.sh              install what building and demonstrating needs and this machine lacks
#   benches/install.sh --tests      and what tests need
#   benches/install.sh ... --check  only list what is missing
#
# Exit: 0 all there; 1 something is missing or could not be installed; 2 wrong usage; 3 not Debian or Ubuntu
# on x86-64: what is needed was listed, nothing was changed.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly QEMU_MIN=7.2
readonly GUEST_DIR="${CARGO_TARGET_DIR:-target}/guest"
readonly VMLINUZ="$GUEST_DIR/vmlinuz"
# What the guest loads to read its disk image, in this order: a driver, then the file system and what it stands on.
# A kernel that has one of them built in ships no such file, and needs none.
readonly MODULES="$GUEST_DIR/modules"
readonly MODULE_NAMES=(virtio_blk crc16 crc32c_generic mbcache jbd2 ext4)
# Others may be using apt on this machine: wait for them rather than fail.
readonly LOCK_WAIT_S=600

check_only=no
for_tests=no
for option in "$@"; do
    case "$option" in
        --check) check_only=yes ;;
        --tests) for_tests=yes ;;
        *) echo "usage: benches/install.sh [--tests] [--check]" >&2; exit 2 ;;
    esac
done

say() { echo "install: $*" >&2; }
die() { say "$*"; exit 1; }

# shellcheck disable=SC1091 # absent on this machine or not, its form is fixed by os-release(5)
[ -r /etc/os-release ] && . /etc/os-release
is_apt_system() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null \
        && [[ " ${ID:-} ${ID_LIKE:-} " =~ \ (debian|ubuntu)\  ]] && [ "$(uname -m)" = x86_64 ]
}

# ---- what is missing ----------------------------------------------------------------------------------------

# Prints 10.0 for "QEMU emulator version 10.0.2 (...)"; nothing when there is no QEMU.
qemu_version() { qemu-system-x86_64 --version 2>/dev/null | sed -nE '1s/.*version ([0-9]+\.[0-9]+).*/\1/p'; }
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }
qemu_is_good() { local have; have="$(qemu_version)"; [ -n "$have" ] && at_least "$have" "$QEMU_MIN"; }

# setpriv (util-linux) ties the processes that tests start to the life of the test; socat and zstd are what gateways
# are compared with; mke2fs writes the guest's disk image; git is what glommio's build script calls; ip makes the
# lab's namespaces, iperf3 and ping measure its links; pkg-config finds the SQLite that the store links.
missing_packages() {
    { command -v cc && command -v c++ && command -v make; } >/dev/null || echo build-essential
    command -v git >/dev/null || echo git
    command -v socat >/dev/null || echo socat
    command -v zstd >/dev/null || echo zstd
    command -v setpriv >/dev/null || echo util-linux
    command -v ip >/dev/null || echo iproute2
    command -v iperf3 >/dev/null || echo iperf3
    command -v ping >/dev/null || echo iputils-ping
    command -v pkg-config >/dev/null || echo pkg-config
    [ -e /usr/include/sqlite3.h ] || echo libsqlite3-dev
    { command -v mke2fs || [ -x /usr/sbin/mke2fs ] || [ -x /sbin/mke2fs ]; } >/dev/null || echo e2fsprogs
    [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
    qemu_is_good || echo qemu-system-x86
    [ "$for_tests" = no ] || missing_test_packages
}

# libfaketime sets a control process's clock; the store's tests start clusters of PostgreSQL and servers of Redis of their own; dpkg-shlibdeps and strace make and check
# the package; prometheus, curl and jq check alert rules and the dashboard; clang 14 with llvm-strip and libbpf's headers
# compile the kernel's program anew, to compare it with the embedded one.
missing_test_packages() {
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || echo postgresql
    command -v redis-server >/dev/null || echo redis-server
    [ -e /usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1 ] || echo libfaketime
    command -v prometheus >/dev/null || echo prometheus
    command -v curl >/dev/null || echo curl
    command -v jq >/dev/null || echo jq
    command -v strace >/dev/null || echo strace
    command -v dpkg-shlibdeps >/dev/null || echo dpkg-dev
    command -v clang-14 >/dev/null || echo clang-14
    command -v llvm-strip-14 >/dev/null || echo llvm-14
    [ -e /usr/include/bpf/bpf_helpers.h ] || echo libbpf-dev
}

# A cargo that rustup installed may be missing from the PATH of a shell that never read its profile.
have_cargo() { command -v cargo >/dev/null || [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; }

mapfile -t packages < <(missing_packages)

if ! is_apt_system; then
    say "this is not Debian or Ubuntu on x86-64, so nothing was changed. What NovaCron needs here:"
    cat >&2 <<NEEDS
  a C and C++ compiler, make, git    (to build)
  rustup or Rust of the version in Cargo.toml's rust-version, or later, with rustfmt and clippy
  pkg-config, SQLite >= 3.34.1 with its headers
  qemu-system-x86_64 >= $QEMU_MIN, socat, zstd, setpriv, ip, iperf3, ping, mke2fs   (to test and to demonstrate)
  PostgreSQL >= 12, redis-server, prometheus, curl, jq, strace, dpkg-shlibdeps   (to test)
  clang-14, llvm-strip-14, libbpf's headers   (to test: they compile the kernel's program anew)
  a Linux kernel with a 16550 serial port and devtmpfs built in, as $VMLINUZ
NEEDS
    exit 3
fi

if [ "$check_only" = yes ]; then
    missing=0
    for package in "${packages[@]}"; do echo "missing: $package"; missing=1; done
    have_cargo || { echo "missing: cargo"; missing=1; }
    { [ -s "$VMLINUZ" ] && [ -d "$MODULES" ]; } || { echo "missing: guest kernel $VMLINUZ"; missing=1; }
    exit "$missing"
fi

# ---- apt ----------------------------------------------------------------------------------------------------

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null && as_root=(sudo)
fi
privileged() {
    [ "$(id -u)" -eq 0 ] || [ ${#as_root[@]} -gt 0 ] \
        || die "not root and no sudo here: nothing was installed. Run as root: $*"
    "${as_root[@]}" "$@"
}

# apt-get's own lock wait covers dpkg's lock, not the one on the package lists: hence the bounded retry.
apt_update() {
    local deadline=$((SECONDS + LOCK_WAIT_S))
    until privileged apt-get -qq -o DPkg::Lock::Timeout="$LOCK_WAIT_S" update; do
        [ "$SECONDS" -lt "$deadline" ] || die "apt-get update kept failing for $LOCK_WAIT_S s; nothing was lost. See its message above"
        sleep 5
    done
}
updated=no
apt_update_once() {
    [ "$updated" = no ] || return 0
    say "apt-get update"
    apt_update
    updated=yes
}
apt_install() {
    say "installing: $*"
    privileged env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
        -o DPkg::Lock::Timeout="$LOCK_WAIT_S" -o Dpkg::Use-Pty=0 install "$@" >/dev/null
}

# The mirror is the one that this machine's owner configured, never one of ours.
own_mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' \
        "Codename: $VERSION_CODENAME" 'Component: main' | head -n 1
}

# bookworm's own QEMU clashes with a qemu-utils from backports, and its newest kernel is older than the one the
# figures were taken with: on bookworm both come from backports.
backports=""
[ "${VERSION_CODENAME:-}" = bookworm ] && backports=bookworm-backports
add_backports() {
    [ -n "$backports" ] || return 0
    apt-get indextargets --format '$(RELEASE)' 'Created-By: Packages' | grep -qx "$backports" && return 0
    local mirror
    mirror="$(own_mirror)"
    [ -n "$mirror" ] || die "no apt source for $VERSION_CODENAME main is configured, so its mirror is unknown. Add one and run again"
    local signed_by=/usr/share/keyrings/debian-archive-keyring.gpg
    say "adding the suite $backports (/etc/apt/sources.list.d/novacron-backports.sources)"
    {
        printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\n' "$mirror" "$backports"
        [ ! -e "$signed_by" ] || printf 'Signed-By: %s\n' "$signed_by"
    } | privileged tee /etc/apt/sources.list.d/novacron-backports.sources >/dev/null
    updated=no
}

if [ ${#packages[@]} -gt 0 ]; then
    from_suite=()
    if [[ " ${packages[*]} " == *" qemu-system-x86 "* ]]; then
        add_backports
        [ -z "$backports" ] || from_suite=(-t "$backports")
    fi
    apt_update_once
    plain=()
    for package in "${packages[@]}"; do [ "$package" = qemu-system-x86 ] || plain+=("$package"); done
    [ ${#plain[@]} -eq 0 ] || apt_install "${plain[@]}"
    [[ " ${packages[*]} " != *" qemu-system-x86 "* ]] || apt_install "${from_suite[@]}" qemu-system-x86
    qemu_is_good || die "the installed QEMU is '$(qemu_version)', older than $QEMU_MIN. Install a newer qemu-system-x86_64"
fi

# ---- the guest's kernel: unpacked, never installed, so the machine's own boot stays as it is ---------------------

kernel_package() {
    local names
    names="$(apt-cache search --names-only '^linux-image-[0-9].*-(amd64|generic)$' | cut -d' ' -f1 \
        | grep -vE -- '-(cloud|rt|unsigned|dbg)' | sort -V)"
    { grep -E '^linux-image-6\.12' <<<"$names" || echo "$names"; } | tail -n 1
}

if [ ! -s "$VMLINUZ" ] || [ ! -d "$MODULES" ]; then
    add_backports
    package="$(kernel_package)"
    if [ -z "$package" ] || { [ -n "$backports" ] && [[ "$package" != linux-image-6.12* ]]; }; then
        apt_update_once
        package="$(kernel_package)"
    fi
    [ -n "$package" ] || die "no package linux-image-*-amd64 or -generic is known to apt. Put a kernel at $VMLINUZ"
    mkdir -p "$GUEST_DIR"
    work="$(mktemp -d "$GUEST_DIR/kernel.XXXXXX")"
    trap 'rm -rf "$work"' EXIT
    say "downloading the guest kernel $package"
    # As root, apt-get download would drop to user _apt, which may not write here; the file is checked all the same.
    (cd "$work" && { apt-get -qq -o APT::Sandbox::User=root download "$package" \
        || { apt_update_once; apt-get -qq -o APT::Sandbox::User=root download "$package"; }; })
    # Of the package's hundred megabytes the guest needs a few files.
    dpkg-deb --fsys-tarfile "$work"/*.deb >"$work/kernel.tar"
    tar -x -f "$work/kernel.tar" -C "$work" --wildcards './boot/vmlinuz-*'
    mkdir "$work/modules"
    order=0
    for name in "${MODULE_NAMES[@]}"; do
        tar -x -f "$work/kernel.tar" -C "$work" --wildcards "*/$name.ko*" 2>/dev/null || continue
        file="$(find "$work" -path "*/kernel/*" -name "$name.ko*" | head -n 1)"
        mv "$file" "$work/modules/$((order++))-${file##*/}"
    done
    rm -rf "$MODULES"
    mv "$work/modules" "$MODULES"
    mv "$work"/boot/vmlinuz-* "$VMLINUZ"
    echo "$package" >"$GUEST_DIR/vmlinuz.package"
fi

# ---- Rust ---------------------------------------------------------------------------------------------------

if ! have_cargo; then
    apt_update_once
    if LC_ALL=C apt-cache policy rustup | grep -qE 'Candidate: [0-9]'; then
        apt_install rustup
        rustup default stable
    else
        die "no cargo here and this release has no package rustup. Install Rust (stable, with rustfmt and clippy) with the installer from the Rust project's site (\"rustup\"), then run this again. Everything else is installed"
    fi
fi
