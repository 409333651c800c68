#!/usr/bin/env bash
# Makes a Debian package of the programs that are built: novacron-gateway, novactl and, where it is, novacron-control.
#
#   image/deb/build.sh PROGRAMS OUT      image/deb/build.sh target/release target/package
#
# Prints the package's path. The same commit and programs give the same bytes: owners, times and order are fixed.
# Exit: 0 made; 1 something is missing or failed; 2 wrong usage.
set -euo pipefail

[ $# -eq 2 ] || { echo "usage: image/deb/build.sh PROGRAMS OUT" >&2; exit 2; }
programs="$(realpath "$1")"
mkdir -p "$2"
out="$(realpath "$2")"
cd "$(dirname "$0")/../.."
readonly FILES=image/deb/files
say() { echo "package: $*" >&2; }

for tool in dpkg-deb dpkg-shlibdeps strip; do
    command -v "$tool" >/dev/null || { say "$tool is missing: install dpkg-dev and binutils"; exit 1; }
done
for program in novacron-gateway novactl; do
    [ -x "$programs/$program" ] || { say "$programs/$program is not built: make build"; exit 1; }
done

version="$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)"
[ -n "$version" ] || { say "Cargo.toml names no version"; exit 1; }
architecture="$(dpkg --print-architecture)"
SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}"
export SOURCE_DATE_EPOCH

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
root="$work/root"
put() { install -D -m "$1" "$2" "$root/$3"; }

built=(novacron-gateway novactl)
if [ -x "$programs/novacron-control" ]; then
    built+=(novacron-control)
    put 0644 "$FILES/novacron-control.service" lib/systemd/system/novacron-control.service
    put 0644 "$FILES/novacron.yaml" etc/novacron/novacron.yaml
else
    say "novacron-control is not built: the package is without it"
fi
for program in "${built[@]}"; do
    put 0755 "$programs/$program" "usr/bin/$program"
    # Names of functions stay for backtraces; line tables are ten times the program.
    strip --strip-debug "$root/usr/bin/$program"
done
put 0644 "$FILES/novacron-gateway.service" lib/systemd/system/novacron-gateway.service
put 0644 "$FILES/novacron.sysusers" usr/lib/sysusers.d/novacron.conf
put 0644 "$FILES/novacron.tmpfiles" usr/lib/tmpfiles.d/novacron.conf
put 0644 "$FILES/novacron-gateway.default" etc/default/novacron-gateway
put 0644 README.md usr/share/doc/novacron/README.md
put 0644 LICENSE usr/share/doc/novacron/copyright
printf 'novacron (%s) unstable; urgency=medium\n\n  * As of this version; what changed is in the repository.\n\n -- %s  %s\n' \
    "$version" "NovaCron Gateway <novacron@localhost>" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")" \
    | gzip -9n >"$work/changelog.gz"
put 0644 "$work/changelog.gz" usr/share/doc/novacron/changelog.gz

mkdir "$work/debian" "$root/DEBIAN"
printf 'Source: novacron\n\nPackage: novacron\nArchitecture: any\n' >"$work/debian/control"
libraries="$(cd "$work" && dpkg-shlibdeps -O root/usr/bin/* | sed -n 's/^shlibs:Depends=//p')"
[ -n "$libraries" ] || { say "dpkg-shlibdeps found no libraries"; exit 1; }

cat >"$root/DEBIAN/control" <<CONTROL
Package: novacron
Version: $version
Architecture: $architecture
Maintainer: NovaCron Gateway <novacron@localhost>
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Depends: $libraries, systemd
Section: admin
Priority: optional
Description: gateway for live migration of virtual machines
 Stands at the edge of a site. Hypervisors send their migration streams into
 it; it sends less, survives cuts of the network, and hands the destination
 hypervisor exactly the bytes that the source wrote.
 .
 Holds ${built[*]}, and hardened units.
CONTROL
(cd "$root" && find etc -type f -printf '/%p\n' | sort) >"$root/DEBIAN/conffiles"
(cd "$root" && find usr lib -type f -print0 | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
for script in postinst prerm postrm; do install -m 0755 "$FILES/$script" "$root/DEBIAN/$script"; done
chmod 0644 "$root"/DEBIAN/{control,conffiles,md5sums}
find "$root" -type d -exec chmod 0755 {} +
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

package="$out/novacron_${version}_${architecture}.deb"
dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >/dev/null
echo "$package"
